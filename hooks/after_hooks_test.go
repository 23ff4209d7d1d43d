package hooks

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// Hooks after create that are slower than the webhooks hold these up: they do not pile
// up. One that hangs, or waits for a webhook in its turn, ends nothing.
func TestHooksAfterCommitAreBounded(t *testing.T) {
	t.Parallel()
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.awaitOutbox(t)
		release := make(chan struct{})
		var running, most atomic.Int32
		server.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-release
			return e.Next()
		})
		for i := range commit.MaxOpen { // answered while all hooks before still run
			server.mustPost(t, generated(fmt.Sprint(i), `{}`, ""))
		}
		eventually(t, "their hooks run", func() bool { return running.Load() == commit.MaxOpen })
		var group sync.WaitGroup
		const more = 8
		for i := range more {
			group.Go(func() {
				if status, body, err := server.tryPost(generated(fmt.Sprint("more", i), `{}`, ""), nil); err != nil || status != 200 {
					t.Errorf("got %d %s %v", status, body, err)
				}
			})
		}
		awaitWebhooks(t, server.plugin.commits, more)
		if got := len(records(t, server, store.Content)); got != commit.MaxOpen {
			t.Errorf("records: got %d, want %d", got, commit.MaxOpen)
		}
		close(release)
		group.Wait()
		server.plugin.commits.Stop(20 * time.Second)
		if got := most.Load(); got > commit.MaxOpen {
			t.Errorf("hooks at the same time: got %d, want at most %d", got, commit.MaxOpen)
		}
		if got := len(records(t, server, store.Content)); got != commit.MaxOpen+more {
			t.Errorf("records: got %d, want %d", got, commit.MaxOpen+more)
		}
	})
	t.Run("each waits for another webhook", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.awaitOutbox(t)
		var all sync.WaitGroup
		all.Add(commit.MaxOpen)
		server.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
			if title := e.Record.GetString("title"); !strings.HasPrefix(title, "inner") {
				all.Done()
				all.Wait()
				server.tryPost(generated("inner "+title, `{"title":"inner"}`, ""), nil)
			}
			return e.Next()
		})
		for i := range commit.MaxOpen {
			server.mustPost(t, generated(fmt.Sprint(i), fmt.Sprintf(`{"title":"%d"}`, i), ""))
		}
		eventually(t, "the committer waits for the hooks", func() bool {
			return len(server.plugin.commits.Waiting()) > 0
		})
		for deadline := time.Now().Add(3 * commit.MaxWait); ; {
			status, _, err := server.tryPost(generated("later", `{}`, ""), nil)
			if err == nil && status == 200 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("a later webhook: got %d, %v", status, err)
			}
		}
	})
}

func TestCommitterEnds(t *testing.T) {
	t.Parallel()
	terminate := func(server *testServer) {
		event := &core.TerminateEvent{App: server.TestApp}
		if err := server.OnTerminate().Trigger(event, func(*core.TerminateEvent) error { return nil }); err != nil {
			t.Error(err)
		}
	}
	t.Run("with the hooks that run", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		began, release := make(chan struct{}), make(chan struct{})
		var ended atomic.Bool
		server.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
			close(began)
			<-release
			time.Sleep(50 * time.Millisecond) // its work
			ended.Store(true)
			return e.Next()
		})
		server.mustPost(t, generated("ending", `{}`, ""))
		<-began
		close(release)
		terminate(server)
		if !ended.Load() {
			t.Error("a hook after create still runs behind OnTerminate")
		}
		if err := server.plugin.commits.Do(func(core.App) error { return nil }); err != nil {
			t.Errorf("a write afterwards: %v", err)
		}
	})
	t.Run("without one that hangs", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		began, release := make(chan struct{}), make(chan struct{})
		t.Cleanup(func() { close(release) })
		server.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
			close(began)
			<-release
			return e.Next()
		})
		server.mustPost(t, generated("hanging", `{}`, ""))
		<-began
		started := time.Now()
		terminate(server)
		if took := time.Since(started); took > time.Minute {
			t.Errorf("OnTerminate took %s", took)
		}
	})
}

// What a hook after the commit does cannot take back the answer: the record is stored.
func TestIngestAfterCommitHooks(t *testing.T) {
	t.Parallel()
	for name, hook := range map[string]func(e *core.RecordEvent) error{
		"returns an error": func(e *core.RecordEvent) error { return errors.New("mail server is down") },
		"panics":           func(e *core.RecordEvent) error { panic("nil map") },
		"hangs for a while": func(e *core.RecordEvent) error {
			time.Sleep(500 * time.Millisecond)
			return e.Next()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			server := newTestServer(t, testConfig())
			server.OnRecordAfterCreateSuccess(store.Content).BindFunc(hook)
			for i := range 3 {
				channel := fmt.Sprint("after-", i)
				server.mustPost(t, generated(channel, `{}`, rec.callbackURL(channel)))
			}
			rec.await(t, 3)
			if got := len(records(t, server, store.Content)); got != 3 {
				t.Errorf("records: got %d, want 3", got)
			}
		})
	}
}
