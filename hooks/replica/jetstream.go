package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// find opens the stream, or fails with errNoStream.
func (l *streamLog) find() (err error) {
	ctx, cancel := l.request()
	defer cancel()
	l.stream, err = l.js.Stream(ctx, streamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = errNoStream
		if l.hasMessages() && !l.config.several() {
			err = fmt.Errorf("the log in %s is damaged: put a copy of it back (the app's own logs say what is wrong)", l.dir)
		}
	}
	if err == nil {
		if config := l.stream.CachedInfo().Config; config.AllowDirect != l.direct() { // as an earlier program made it
			config.AllowDirect = l.direct()
			l.stream, err = l.js.UpdateStream(ctx, config)
		}
	}
	if err != nil {
		l.stream = nil
		return err
	}
	l.id = l.stream.CachedInfo().Config.Metadata["id"]
	return nil
}

// create creates the stream for a log with that id. One that is there already is as good.
func (l *streamLog) create(id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.js == nil {
		return errClosed
	}
	ctx, cancel := l.request()
	defer cancel()
	_, err := l.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{subject}, Storage: jetstream.FileStorage, Replicas: max(1, len(l.config.Peers)),
		AllowAtomicPublish: true, DenyDelete: true,
		AllowDirect: l.direct(),
		Discard:     jetstream.DiscardNew, MaxBytes: l.max,
		Metadata: map[string]string{"id": id},
	})
	if err != nil {
		return err
	}
	return l.find()
}

// direct reports whether any server that has the log is read from. Of several nodes, that could be one that stands still.
func (l *streamLog) direct() bool { return !l.config.several() }

// look opens the stream if that isn't.
func (l *streamLog) look() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.js == nil {
		return errClosed
	}
	if l.stream != nil {
		return nil
	}
	return l.find()
}

func streamDir(dir string) string {
	return filepath.Join(dir, server.JetStreamStoreDir, server.DEFAULT_GLOBAL_ACCOUNT, "streams", streamName)
}

// hasBegun reports whether there is, or was, a part of a log.
func hasBegun(dir string) bool {
	_, err := os.Stat(streamDir(dir))
	return err == nil
}

// hasMessages reports whether a stream was written to, which the server didn't find all the same.
func (l *streamLog) hasMessages() bool {
	files, _ := os.ReadDir(filepath.Join(streamDir(l.dir), "msgs"))
	return slices.ContainsFunc(files, func(file fs.DirEntry) bool {
		info, err := file.Info()
		return err == nil && info.Size() > 0 && filepath.Ext(file.Name()) == ".blk"
	})
}

// removeUnfinished removes what a first start that was killed has left of a stream, if JetStream would write to it,
// and not find it any more when it starts again.
func (l *streamLog) removeUnfinished() error {
	dir := streamDir(l.dir)
	if _, err := os.Stat(filepath.Join(dir, server.JetStreamMetaFileSum)); !errors.Is(err, fs.ErrNotExist) || l.hasMessages() {
		return nil
	}
	return os.RemoveAll(dir)
}
