package hooks

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// A hook behind the commit of content may create a request, in as many batches as are open:
// none of them waits for another.
func TestAskAfterContent(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerChannels)
	app := server.TestApp
	var reached, created sync.WaitGroup
	reached.Add(commit.MaxOpen)
	created.Add(commit.MaxOpen)
	requests, err := app.FindCollectionByNameOrId(store.Requests)
	if err != nil {
		t.Fatal(err)
	}
	app.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
		defer created.Done()
		reached.Done()
		reached.Wait() // until as many batches are open as may be
		request := core.NewRecord(requests)
		request.Set("workflow", "story")
		request.Set("input", `{}`)
		if err := app.Save(request); err != nil {
			t.Error(err)
		}
		return e.Next()
	})
	began := time.Now()
	var group sync.WaitGroup
	for i := range commit.MaxOpen {
		group.Go(func() {
			if status, body, err := server.tryPost(generated(fmt.Sprintf("c-%d", i), `{"title":"x"}`, ""), nil); err != nil || status != 200 {
				t.Errorf("%d %s %v", status, body, err)
			}
		})
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if n, err := app.CountRecords(store.Content); err == nil && int(n) > i {
				break
			}
		}
	}
	group.Wait()
	created.Wait()
	if n, err := app.CountRecords(store.Requests); err != nil || int(n) != commit.MaxOpen {
		t.Errorf("got %d requests (%v), want %d", n, err, commit.MaxOpen)
	}
	if took := time.Since(began); took > commit.MaxWait/2 {
		t.Errorf("it took %s: batches waited for each other", took)
	}
}

// What clients wait for goes before what waits for the same database behind their backs.
func TestBatchesYieldToClients(t *testing.T) {
	t.Parallel()
	_, p := newTestApp(t, testConfig())
	if p.commits.Yields() {
		t.Error("a batch yields to nobody")
	}
	began, held, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	p.creates.Add(&commit.Write{
		Run:  func(core.App) error { close(began); <-held; return nil },
		Done: func(error) { close(done) },
	})
	<-began
	if !p.commits.Yields() {
		t.Error("a batch does not yield to a client")
	}
	close(held)
	<-done
}
