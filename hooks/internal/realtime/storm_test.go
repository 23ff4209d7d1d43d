package realtime

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/tools/logger"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// Those who come together are given turns one after the other, nobody is kept beyond the
// longest, and when the storm is over nobody waits.
func TestTurns(t *testing.T) {
	t.Parallel()
	_, f := newTwo(t)
	began, waited := time.Now(), 0
	var before, longest time.Duration
	for i := range 5000 {
		asked := time.Since(began)
		wait := f.turn()
		if i < comeAtOnce && wait > 0 {
			t.Fatalf("stream %d, which is one of the first, waits %s", i, wait)
		}
		if at := time.Since(began) + wait; wait > 0 {
			waited++
			if at < before {
				t.Fatalf("stream %d has its turn after %s, and the one before it after %s", i, at, before)
			}
			before = asked + wait // at the earliest
		}
		longest = max(longest, wait)
	}
	took := time.Since(began)
	if want := 4000 - int(took/comeEvery); waited < want {
		t.Errorf("of 5000 that came within %s, %d wait, want at least %d", took, waited, want)
	}
	if want := 5000 * comeEvery; longest > want {
		t.Errorf("one waits %s, want at most %s", longest, want)
	}

	for range 50_000 {
		if wait := f.turn(); wait > maxTurn {
			t.Fatalf("one waits %s, want at most %s", wait, maxTurn)
		}
	}
	f.nextTurn = f.nextTurn.Add(-maxTurn - 5*time.Second) // as if that time had passed
	if wait := f.turn(); wait > 0 {
		t.Errorf("one waits %s after the storm", wait)
	}
}

// While streams wait for their turns, what they ask is asked one after the other, and
// everything else is answered at once.
func TestRequestsOfAStormWaitForEachOther(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	server := apptest.Serve(t, app)
	f.mu.Lock()
	f.nextTurn = time.Now().Add(time.Hour)
	f.mu.Unlock()
	for range cap(f.turns) {
		f.turns <- struct{}{}
	}
	get := func(ctx context.Context, path string) (int, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := server.Client.Do(request)
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}
	const list = "/api/collections/aiContent/records"
	if status, err := get(t.Context(), list+"/none00000000000"); status != http.StatusNotFound {
		t.Errorf("one record: got %d (%v), want an answer", status, err)
	}
	listed := make(chan int, 1)
	go func() {
		status, _ := get(t.Context(), list)
		listed <- status
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if status, err := get(ctx, list); err == nil {
		t.Errorf("a list with no place free: got %d", status)
	}
	select {
	case status := <-listed:
		t.Errorf("the list was answered %d before its turn", status)
	default:
	}
	<-f.turns
	if status := <-listed; status != http.StatusOK {
		t.Errorf("the list in its turn: got %d", status)
	}

	f.mu.Lock()
	f.nextTurn = time.Time{}
	f.mu.Unlock()
	f.turns <- struct{}{} // none is free, and there is no storm
	if status, err := get(t.Context(), list); status != http.StatusOK {
		t.Errorf("a list after the storm: got %d (%v)", status, err)
	}
}

// Of the lists of a storm PocketBase logs those that fail.
func TestListsOfAStormAreNotLogged(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	settings := app.Settings()
	settings.Logs.MaxDays = 1
	if err := app.Save(settings); err != nil {
		t.Fatal(err)
	}
	server := apptest.Serve(t, app)
	list := func(query string) {
		response, err := server.Client.Get(server.URL + "/api/collections/aiContent/records?" + query)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
	list("page=1")
	f.mu.Lock()
	f.nextTurn = time.Now().Add(time.Hour)
	f.mu.Unlock()
	list("page=2")
	list("filter=none")

	if err := app.Logger().Handler().(*logger.BatchHandler).WriteAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	var logged []string
	err := app.AuxDB().NewQuery("SELECT json_extract(data, '$.url') FROM _logs WHERE json_extract(data, '$.type') = 'request' ORDER BY rowid").Column(&logged)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/api/collections/aiContent/records?page=1", "/api/collections/aiContent/records?filter=none"}
	if !slices.Equal(logged, want) {
		t.Errorf("logged: got %q, want %q", logged, want)
	}
}
