package recovery

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
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

// A lateBucket takes its time, once it is ending, over the next sign of life, until another one is there.
type lateBucket struct {
	bucket
	ending, came, another, done chan struct{}
	signs                       atomic.Int32
}

func (b *lateBucket) Put(ctx context.Context, key string, content io.Reader, size int64, onlyNew bool) error {
	sign := int32(0)
	select {
	case <-b.ending:
		if key == aliveKey {
			sign = b.signs.Add(1)
		}
	default:
	}
	if sign == 1 {
		defer close(b.done)
		close(b.came)
		select {
		case <-b.another:
		case <-time.After(time.Second): // none comes before this one is there
		}
	}
	err := b.bucket.Put(ctx, key, content, size, onlyNew)
	if sign == 2 {
		close(b.another)
	}
	return err
}

// The sign of the end is the last one: else whoever comes next looks for a server that was stopped cleanly.
func TestTheSignOfTheEndIsTheLast(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	r, err := New(app, nil, Options{URL: "file://" + filepath.Join(t.TempDir(), "replica"), Ack: AckWait, Retention: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	b := &lateBucket{bucket: r.bucket, ending: make(chan struct{}), came: make(chan struct{}), another: make(chan struct{}), done: make(chan struct{})}
	r.bucket, r.client.bucket = b, b
	r.start()
	if err := r.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(b.ending)
	r.client.changed <- struct{}{}
	<-b.came
	r.finish()
	<-b.done
	if s, err := readSign(t.Context(), b); !s.Ended || err != nil {
		t.Errorf("got %+v, %v", s, err)
	}
}
