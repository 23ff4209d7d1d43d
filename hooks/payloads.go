package hooks

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// Bounds of what waits to be written.
const (
	payloadsWait = 200 * time.Millisecond // a crash loses those of this time
	payloadsSize = 1 << 20                // bytes that don't wait for it
	maxPayloads  = 32 << 20               // bytes, while auxiliary.db can't be written, or one payload
)

// payloads writes what is kept of webhooks behind their answers, several together: each in its
// webhook's own transaction, they took a sixth of all webhooks that a server could store. It
// deletes them behind what they belong to. No webhook waits for it or fails with it.
type payloads struct {
	app core.App

	writing sync.Mutex // is held by who writes

	mu      sync.Mutex
	waiting []*store.Payload
	deleted []string // ids of records, and of callbacks, that were deleted
	size    int      // of what waits
	timed   bool     // it will be written by and by
	hurried bool     // it will be written at once

	lost  int // payloads that were not kept, and of which nothing was told yet
	cause error
	told  time.Time
}

func (p *payloads) bind() {
	forget := &hook.Handler[*core.RecordEvent]{
		Id: "modelriverForgetPayload", Priority: -10000, // before a hook of the app's that fails
		Func: func(e *core.RecordEvent) error {
			p.forget(e.Record.Id)
			return e.Next()
		},
	}
	p.app.OnRecordAfterDeleteSuccess(store.Content, store.Callbacks).Bind(forget)
}

// add has the payload of a stored webhook written.
func (p *payloads) add(kept *store.Payload) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = append(p.waiting, kept)
	p.size += len(kept.Payload)
	for p.size > maxPayloads && len(p.waiting) > 1 {
		p.size -= len(p.waiting[0].Payload)
		p.waiting[0] = nil
		p.waiting = p.waiting[1:]
		p.lost++
		p.cause = errors.New("more came than auxiliary.db took")
	}
	p.plan()
}

// forget has the payload deleted of what was deleted, unless it is the callback of a record that
// is still there.
func (p *payloads) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deleted = append(p.deleted, id)
	p.plan()
}

func (p *payloads) plan() {
	switch {
	case p.size >= payloadsSize && !p.hurried:
		p.hurried = true
		go p.write()
	case !p.timed:
		p.timed = true
		time.AfterFunc(payloadsWait, p.write)
	}
}

// flush returns when the payloads of all webhooks that were answered are written, or when that
// takes too long.
func (p *payloads) flush() {
	written := make(chan struct{})
	go func() {
		p.write()
		close(written)
	}()
	select {
	case <-written:
	case <-time.After(writeGrace):
	}
}

// write writes all that waits, behind what is being written. What was deleted before it looks
// for its record is not written, and what is deleted then is deleted by the next write.
func (p *payloads) write() {
	p.writing.Lock()
	defer p.writing.Unlock()
	waiting, deleted := p.take()
	if len(waiting)+len(deleted) == 0 || !p.app.IsBootstrapped() {
		return // that is done already, or the databases are closed
	}
	// The databases may be closed meanwhile, when the server ends: PocketBase panics then.
	if err := commit.Safely(p.app, func(app core.App) error { return store.DeletePayloads(app, deleted) }); err != nil {
		p.app.Logger().Warn("Failed to delete the payloads of deleted records: that is tried again at night", "error", err)
	}
	count := len(waiting)
	if err := commit.Safely(p.app, func(app core.App) error { return store.InsertPayloads(app, waiting) }); err != nil {
		p.mu.Lock()
		p.lost += count
		p.cause = err
		p.mu.Unlock()
	}
	p.tell()
}

func (p *payloads) take() (waiting []*store.Payload, deleted []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting, deleted = p.waiting, p.deleted
	p.waiting, p.deleted, p.size, p.timed, p.hurried = nil, nil, 0, false, false
	return waiting, deleted
}

// tell tells of payloads that were not kept, once a minute: the terminal too, as the log is in
// the same file.
func (p *payloads) tell() {
	p.mu.Lock()
	lost, cause := p.lost, p.cause
	if lost == 0 || time.Since(p.told) < time.Minute {
		p.mu.Unlock()
		return
	}
	p.lost, p.told = 0, time.Now()
	p.mu.Unlock()
	text := fmt.Sprintf("The payloads of %s were not kept, but what they hold is stored. Make room if the disk is full, and see that auxiliary.db can be written", english.Plural(lost, "webhook", ""))
	p.app.Logger().Warn(text, "error", cause)
	fmt.Fprintf(os.Stderr, "Warning: %s: %v.\n", text, cause)
}
