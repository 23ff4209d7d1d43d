package hooks

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// atClock sets the server's clock.
func (s *testServer) atClock(clock string) time.Time {
	now, err := time.Parse("2006-01-02 15:04", clock)
	if err != nil {
		panic(err)
	}
	s.plugin.outbox.Now = func() time.Time { return now }
	return now
}

func TestHoursOfRejections(t *testing.T) {
	t.Parallel()
	app, p := newTestApp(t, testConfig())
	s := serve(t, app, p)
	p.outbox.Stop() // which reads the clock
	token := superuserToken(t, s)
	expect := func(clock string, lastHour, today, count int) {
		t.Helper()
		s.atClock(clock)
		_, body := s.get(t, "/api/modelriver/stats", token)
		got := body["rejected"].(map[string]any)
		if fmt.Sprint(got["lastHour"], got["today"], got["count"]) != fmt.Sprint(lastHour, today, count) {
			t.Errorf("at %s: got %v, want %d %d %d", clock, got, lastHour, today, count)
		}
	}
	reject := func(clock string) {
		t.Helper()
		s.atClock(clock)
		s.post(t, "x", unsigned)
		p.rejected.settle(t, s)
	}
	reject("2026-03-01 22:59")
	reject("2026-03-01 23:00")
	reject("2026-03-01 23:59")
	expect("2026-03-01 23:59", 3, 3, 3) // 22:59 is an hour ago
	expect("2026-03-02 00:00", 2, 0, 3)
	reject("2026-03-02 00:00")
	expect("2026-03-02 00:30", 3, 1, 4)
	expect("2026-03-02 01:01", 0, 1, 4)
	expect("2026-03-02 23:59", 0, 1, 3) // 23:00 is counted with 23:59
	expect("2026-03-03 00:01", 0, 0, 0)
	if got := len(rejectionRows(t, s)); got != 3 {
		t.Errorf("rows: got %d, want one for each hour", got)
	}

	// The clock is set back: nothing is lost, nothing comes twice, and what lies ahead is not of
	// the last hour.
	reject("2026-03-01 22:10")
	expect("2026-03-01 22:10", 2, 5, 5)
	if got := len(rejectionRows(t, s)); got != 3 {
		t.Errorf("rows after the clock was set back: got %d, want 3", got)
	}

	s.atClock("2026-03-31 23:30")
	deleteOld(s)
	if got := rejectionRows(t, s); len(got) != 1 || got[0].Hour.String() != "2026-03-02 00:00:00.000Z" {
		t.Errorf("after 30 days: got %v", got)
	}
}

// Counts wait for a database that can't be written, bounded, and none is lost or doubled.
func TestRejectionsWaitForTheDatabase(t *testing.T) {
	t.Parallel()
	app, p := newTestApp(t, testConfig())
	p.rejected.every = 20 * time.Millisecond
	s := serve(t, app, p)
	set := func(value string) {
		if _, err := s.NonconcurrentDB().NewQuery("PRAGMA query_only = " + value).Execute(); err != nil {
			t.Fatal(err)
		}
	}
	token := superuserToken(t, s)
	set("ON")
	for range 5 {
		s.post(t, "x", unsigned)
		time.Sleep(30 * time.Millisecond) // through several failures
	}
	if got := len(rejectionRows(t, s)); got != 0 {
		t.Fatalf("rows: got %d, want none", got)
	}
	if status, body := s.get(t, "/api/modelriver/rejections", token); status != 200 || fmt.Sprint(body["lastHour"]) != "5" {
		t.Errorf("got %d %v, want 5 that are not written", status, body)
	}
	set("OFF")
	eventually(t, "the counts are written", func() bool {
		sum := 0
		for _, row := range rejectionRows(t, s) { // two if an hour has begun since
			sum += row.Count
		}
		return sum == 5
	})
	if got := s.rejections(t, token).LastHour; got != 5 {
		t.Errorf("afterwards: got %d, want 5", got)
	}
	eventually(t, "nothing goes on", func() bool {
		p.rejected.mu.Lock()
		defer p.rejected.mu.Unlock()
		return p.rejected.timer == nil
	})

	var r rejections
	for i := range 3 * maxUnwritten {
		r.keep(store.Rejection{Hour: store.DateTime(time.Unix(int64(i)*3600, 0)), Reason: "x", Count: 1})
	}
	if len(r.unwritten) != maxUnwritten || r.unwritten[0].Hour.Unix() != 2*maxUnwritten*3600 {
		t.Errorf("counts that wait: got %d, the first of %v", len(r.unwritten), r.unwritten[0].Hour)
	}
}

// What is committed but not known to be is counted once, though table and memory have it.
func TestRejectionsCountOnceWhileWritten(t *testing.T) {
	t.Parallel()
	s := newRejectingServer(t, time.Hour, 0)
	token := superuserToken(t, s)
	s.plugin.outbox.Stop() // which reads the clock
	s.atClock("2026-03-01 12:00")
	s.post(t, "x", unsigned)
	s.plugin.rejected.settle(t, s)
	s.post(t, "x", unsigned)

	// The batch that commits the count tells of another write first, which takes long to hear it.
	together, known := make(chan struct{}), make(chan struct{})
	s.plugin.commits.Add(&commit.Write{Run: func(core.App) error { <-together; return nil }, Done: func(error) {}})
	eventually(t, "a batch has begun", func() bool { return len(s.plugin.commits.Waiting()) == 0 })
	s.plugin.commits.Add(&commit.Write{Run: func(core.App) error { return nil }, Done: func(error) { <-known }})
	written := s.plugin.rejected.write(s)
	close(together)
	eventually(t, "the count is committed", func() bool { return rejectionRows(t, s)[0].Count == 2 })
	select {
	case <-written:
		t.Fatal("that is known already")
	default:
	}
	time.AfterFunc(100*time.Millisecond, func() { close(known) })
	var readers sync.WaitGroup
	for path, want := range map[string]string{"stats": `"count":2`, "rejections": `"lastHour":2`, "chart": `"rejected":2`} {
		readers.Go(func() {
			if _, body := s.call(t, token, http.MethodGet, "/api/modelriver/"+path, ""); !strings.Contains(body, want) {
				t.Errorf("%s: got %s, want %s", path, body, want)
			}
		})
	}
	readers.Wait()

	s.post(t, "x", unsigned)
	var rows []store.Rejection
	err := s.plugin.rejected.withUnwritten(func(unwritten []store.Rejection) (err error) {
		s.plugin.rejected.settle(t, s) // which begins and ends meanwhile
		rows, err = store.ReadRejections(s, time.Time{}, unwritten)
		return err
	})
	if err != nil || len(rows) != 1 || rows[0].Count != 3 {
		t.Errorf("written while it is read: got %+v, %v, want 3", rows, err)
	}
}
