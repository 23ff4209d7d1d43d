package recovery

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// What is committed while a server that ends ships for the last time is not said to be in the replica.
func TestWhatComesAfterTheLastTurnIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	backend := s3mem.New()
	if err := backend.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	s3 := gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server()
	ending, came, goOn := make(chan struct{}), make(chan struct{}, 100), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-ending:
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/0/") {
				came <- struct{}{}
				<-goOn
			}
		default:
		}
		s3.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	app := apptest.NewApp(t)
	r, err := New(app, nil, Options{URL: "s3://bucket/path?region=us-east-1&endpoint=" + server.URL, Ack: AckWait, Retention: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	otps, err := app.FindCollectionByNameOrId("_otps")
	if err != nil {
		t.Fatal(err)
	}
	write := func() {
		if err := app.SaveNoValidate(core.NewRecord(otps)); err != nil {
			t.Fatal(err)
		}
	}
	r.start()
	if err := r.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(ending)
	write()
	finished, waited := make(chan struct{}), make(chan error)
	go func() {
		r.finish()
		close(finished)
	}()
	<-came
	write()
	go func() { waited <- r.Wait(context.Background()) }()
	for waiting := 0; waiting == 0; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		waiting = len(r.waiting)
		r.mu.Unlock()
	}
	close(goOn)
	<-finished
	if err := <-waited; err == nil {
		t.Error("it was acknowledged")
	}
}
