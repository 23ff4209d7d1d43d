package hooks

import (
	"sync"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// Bounds of what waits to be written: a crash loses no more of the payloads than that.
const (
	payloadsWait = 200 * time.Millisecond
	payloadsSize = 64 << 10 // bytes; more would hold up the webhooks behind them
)

// payloads writes what is kept of webhooks behind their answers, several together: each in its
// webhook's own transaction, they took a sixth of all webhooks that a server could store.
type payloads struct {
	app     core.App
	commits *commit.Committer

	mu      sync.Mutex
	waiting []*store.Payload
	size    int
	timed   bool // a timer will see to what waits
}

// add has the payload of a stored webhook written. It does not wait for it.
func (p *payloads) add(kept *store.Payload) {
	p.mu.Lock()
	p.waiting = append(p.waiting, kept)
	p.size += len(kept.Payload)
	timed, full := p.timed, p.size >= payloadsSize
	p.timed = true
	p.mu.Unlock()
	if full {
		p.commits.Join(p.take(p.done)) // there are webhooks enough to go with
	}
	if !timed {
		time.AfterFunc(payloadsWait, p.write)
	}
}

func (p *payloads) write() {
	p.mu.Lock()
	p.timed = false
	p.mu.Unlock()
	p.commits.Add(p.take(p.done))
}

// flush returns when the payloads of all webhooks that were answered are written.
func (p *payloads) flush() {
	p.done(p.commits.Wait(p.take(nil))) // behind those that are being written
}

// stop is flush when the server ends, which must not take long.
func (p *payloads) stop() {
	written := make(chan struct{})
	p.commits.Add(p.take(func(err error) {
		p.done(err)
		close(written)
	}))
	select {
	case <-written:
	case <-time.After(writeGrace):
	}
}

// take returns the write of all that waits.
func (p *payloads) take(done func(error)) *commit.Write {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := p.waiting
	w := &commit.Write{Size: p.size, Done: done, Run: func(tx core.App) error {
		for _, kept := range waiting {
			if err := kept.Insert(tx); err != nil {
				return err
			}
		}
		return nil
	}}
	p.waiting, p.size = nil, 0
	return w
}

func (p *payloads) done(err error) {
	if err != nil {
		p.app.Logger().Error("Failed to keep payloads of webhooks: their records are stored", "error", err)
	}
}
