package hooks

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/outbox"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// A faultyApp is the app whose transactions a test lets fail or hang.
type faultyApp struct {
	core.App

	mu     sync.Mutex
	before func() error // called before each transaction; an error takes its place
	after  func() error // called after the commit; an error hides that it happened
	count  int          // of transactions, failed ones too
}

func (a *faultyApp) set(before, after func() error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.before, a.after = before, after
}

func (a *faultyApp) transactions() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}

func (a *faultyApp) RunInTransaction(fn func(tx core.App) error) error {
	a.mu.Lock()
	a.count++
	before, after := a.before, a.after
	a.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	if err := a.App.RunInTransaction(fn); err != nil || after == nil {
		return err
	}
	return after()
}

func newFaultyApp(t *testing.T) (core.App, *plugin, *faultyApp) {
	app := apptest.NewApp(t)
	faulty := &faultyApp{App: app}
	p, err := newPlugin(faulty, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	p.bind()
	return app, p, faulty
}

// A database that fails at once must not make the outbox spin: what it could not claim
// gives its place back, which wakes it where the table may hold more.
func TestOutboxRestsWhileTheDatabaseFails(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	app, p, faulty := newFaultyApp(t)
	for i := range outbox.MaxHeld {
		insertTestCallback(t, app, p, fmt.Sprintf("rests%010d", i), rec.callbackURL("rests"))
	}
	faulty.set(func() error { return commit.ErrBusy }, nil)
	p.outbox.Start()
	defer p.outbox.Stop()
	eventually(t, "the outbox tries to claim", func() bool { return faulty.transactions() >= 2 })
	started, before := time.Now(), faulty.transactions()
	time.Sleep(outbox.PollInterval + outbox.PollInterval/2)
	got := faulty.transactions() - before
	if took := time.Since(started); got > 4+int(took/outbox.PollInterval) {
		t.Errorf("transactions in %s: got %d, want one each %s", took, got, outbox.PollInterval)
	}
	faulty.set(nil, nil)
	rec.await(t, outbox.MaxHeld)
}

// The database hangs, and with it whatever the outbox does there: Stop returns all the
// same.
func TestOutboxStopsWhileTheDatabaseHangs(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	app, p, faulty := newFaultyApp(t)
	p.outbox.Start()
	eventually(t, "the outbox has resumed", func() bool { return faulty.transactions() > 0 })
	if err := p.commits.Do(func(core.App) error { return nil }); err != nil {
		t.Fatal(err)
	}
	hang := make(chan struct{})
	faulty.set(func() error { <-hang; return errors.New("hung up") }, nil)
	insertTestCallback(t, app, p, "hangs0000000000", rec.callbackURL("hangs"))
	before := faulty.transactions()
	p.outbox.Wake()
	eventually(t, "the outbox tries to claim", func() bool { return faulty.transactions() > before })

	stopped := make(chan struct{})
	go func() {
		p.outbox.Stop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(commit.MaxWait / 2):
		t.Error("Stop waits for the database")
	}
	close(hang)
	<-stopped

	faulty.set(nil, nil)
	p.outbox.Start()
	defer p.outbox.Stop()
	awaitState(t, app, store.Delivered)
}
