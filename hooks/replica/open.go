package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func (n *Node) open(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.applier != nil {
		if n.path != path {
			return fmt.Errorf("a node has one database: it has %s, not %s", n.path, path)
		}
		return nil
	}
	a, made, err := n.connect(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	a.collections, a.settings = false, false // PocketBase reads them now
	n.path, n.applier, n.fell = path, a, make(chan error, 1)
	at, err := a.standing()
	if err != nil {
		return err
	}
	n.name = at.log[:min(len(at.log), 8)]
	n.reached.set(at.position)
	n.growth.Store(0)
	n.bound.Store(growthBound(path))
	n.condemned.Store(false)
	ctx, cancel := context.WithCancel(context.Background())
	var beside sync.WaitGroup
	n.closed = ctx.Done()
	if n.several() {
		n.starting.Store(true)
		n.caughtUp.set(time.Now())
		beside.Go(func() { n.lead(ctx) })
		beside.Go(func() { n.endStale(ctx) })
		beside.Go(func() { n.watchOthers(ctx, n.peer) })
	} else {
		n.ready.Store(true)
		beside.Go(func() { n.heal(ctx) })
	}
	beside.Go(func() { n.keepSnapshots(ctx, made) })
	stop := func() { cancel(); beside.Wait() }
	n.stop.Store(&stop)
	return nil
}

// openDatabase opens the log and the database, brings that to the end of the log, and reports whether
// it was made or replaced for that.
func (n *Node) openDatabase(path string) (a *applier, made bool, err error) {
	at, damage, err := n.stand(path)
	if err == nil {
		err = n.log.config.checkNodes(path + logSuffix)
	}
	if err != nil {
		return nil, false, err
	}
	if at.empty && !n.several() {
		if _, err := os.Stat(filepath.Join(path+logSuffix, server.JetStreamStoreDir)); errors.Is(err, fs.ErrNotExist) {
			removeDatabase(path)
			if err := beginAt(path); err != nil {
				return nil, false, err
			}
			made = true
			if at, err = standingOf(path); err != nil {
				return nil, false, err
			}
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.shutAll())
		}
	}()
	if err := n.log.hold(path+logSuffix, at); err != nil {
		return nil, false, err
	}
	var base snapshot
	if at.seeded() {
		if base, err = n.base(path, at); err != nil {
			return nil, false, err
		}
	}
	if n.several() {
		if n.peer, err = newPeer(n.log.config); err != nil {
			return nil, false, err
		}
		n.peer.process = n.log.process
		if err := n.mustBeOne(path); err != nil { // before it answers anybody who has its address for that of the node
			return nil, false, err
		}
		if err := n.peer.serve(func(w http.ResponseWriter, r *http.Request) { n.servePeer(path, w, r) }, n.logger); err != nil {
			return nil, false, err
		}
		n.join(path, &at)
	}
	if err := n.log.open(at.log); err != nil {
		return nil, false, err
	}
	for waits := n.newWait(); ; time.Sleep(healPause) {
		a, replaced, err := n.openAt(path, at, base, damage)
		if err != nil && n.several() {
			err = errors.Join(err, n.log.revive(), n.mustBeOne(path))
		}
		if err == nil || !n.several() || isFinal(err) {
			return a, made || replaced, err
		}
		waits.say(err)
	}
}

// isFinal reports whether waiting for other nodes doesn't help.
func isFinal(err error) bool {
	return errors.Is(err, errTwin) || errors.Is(err, errOtherLog) || errors.Is(err, errNoCopy) || errors.Is(err, errNoSnapshot) || isPassedOver(err)
}

// stand returns how far a database has come. One that is missing or damaged is of the log that its snapshots
// are of.
func (n *Node) stand(path string) (at standing, damage string, err error) {
	at, err = standingOf(path)
	if isDamaged(err) {
		if _, noLog := os.Stat(path + logSuffix); noLog == nil {
			damage, err = err.Error(), nil
		}
	}
	if err == nil && damage == "" && !at.empty && at.log == "" {
		err = errUnseeded
	}
	if err == nil && at.log == "" {
		if all := snapshots(snapshotDir(path)); len(all) > 0 {
			at.log = all[0].log
		}
	}
	return at, damage, err
}

// openAt opens a database that stands there, or replaces it.
func (n *Node) openAt(path string, at standing, base snapshot, damage string) (a *applier, replaced bool, err error) {
	if at.seeded() {
		err = n.begin(at, base)
	} else if err = n.log.look(); errors.Is(err, errNoStream) && !n.several() {
		err = fmt.Errorf("the log that the database follows isn't in %s: put it back, or, if it is lost, %w", path+logSuffix, errNewLog)
	}
	if err != nil {
		return nil, false, err
	}
	why, err := n.judge(path, at, base, damage)
	if err != nil {
		return nil, false, err
	}
	if why == "" {
		a, err = n.follow(path)
		if err == nil || !isDiverged(err) && !errors.Is(err, errTrimmed) {
			return a, false, err
		}
		why = err.Error()
	}
	if err := n.replace(path, why); err != nil {
		return nil, false, err
	}
	a, err = n.follow(path)
	return a, true, err
}

// judge returns why a database must be replaced, before the log is applied to it.
func (n *Node) judge(path string, at standing, base snapshot, damage string) (why string, err error) {
	switch {
	case at.log != "" && at.log != n.log.id:
		return "", errOtherLog
	case damage != "":
		return damage, nil
	case at.empty:
		return "it was missing", nil
	}
	mark, err := os.ReadFile(condemnedPath(path))
	if err == nil {
		return cmp.Or(string(mark), "it was found to differ"), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if at.seeded() {
		return "", n.checkBase(base)
	}
	return "", nil
}

// follow opens a database and applies what only the log has.
func (n *Node) follow(path string) (*applier, error) {
	a, err := newApplier(path)
	if err != nil {
		return nil, err
	}
	err = n.catchUp(context.Background(), a, endOfLog)
	if err == nil {
		a.at, err = a.position() // of which nothing may have been applied now
	}
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}
