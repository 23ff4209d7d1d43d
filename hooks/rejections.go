package hooks

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

const (
	maxLatest    = 50              // rejections that are kept in detail
	maxUnwritten = 1000            // counts that wait for a database that can't be written
	writeGrace   = 2 * time.Second // for the last counts when the server ends
	day          = 24 * time.Hour
)

// rejections counts rejected webhooks. Log and terminal tell of the first one at once, and
// then, as often as every says, of those that came since, and as often the counts are added to
// their table: junk from outside writes no line and no row for each, and takes no memory.
type rejections struct {
	every   time.Duration
	commits *commit.Committer
	leads   func() bool // else counts wait, as only the node that leads can write them

	mu     sync.Mutex
	total  int // since the start
	told   int // of them
	timer  *time.Timer
	counts map[string]int // by reason, since the start

	unwritten []store.Rejection // of one hour and reason each
	writing   []store.Rejection
	written   chan struct{} // is closed when writing has ended
	writes    int           // that have begun

	latest [maxLatest]rejection // the newest one at (total - 1) % maxLatest
}

func (r *rejections) add(app core.App, one rejection) {
	r.mu.Lock()
	r.latest[r.total%maxLatest] = one
	r.total++
	if r.counts == nil {
		r.counts = map[string]int{}
	}
	r.counts[one.Reason]++
	r.keep(store.Rejection{
		Hour: store.DateTime(one.At.Time().Truncate(time.Hour)), Reason: one.Reason, Count: 1,
		Last: one.At, Error: one.Error, Remedy: one.Remedy,
	})
	first := r.timer == nil
	if first {
		r.timer = time.AfterFunc(r.every, func() { r.tell(app) })
	}
	r.mu.Unlock()
	if first {
		r.tell(app)
	}
}

// keep adds to what is to be written. Beyond the bound, the oldest is lost.
func (r *rejections) keep(counted store.Rejection) {
	for i := range slices.Backward(r.unwritten) { // the hour that goes on is at the end
		if kept := &r.unwritten[i]; kept.Hour.Equal(counted.Hour) && kept.Reason == counted.Reason {
			kept.Add(counted)
			return
		}
	}
	if len(r.unwritten) == maxUnwritten {
		r.unwritten = slices.Delete(r.unwritten, 0, 1)
	}
	r.unwritten = append(r.unwritten, counted)
}

// tell tells of what was not told yet, and begins to write it. If there is nothing, the next
// one is told at once.
func (r *rejections) tell(app core.App) {
	r.mu.Lock()
	last, n := rejection{}, r.total-r.told
	if n > 0 {
		last = r.latest[(r.total-1)%maxLatest]
	}
	r.told = r.total
	switch {
	case n == 0 && len(r.unwritten)+len(r.writing) == 0:
		r.timer = nil
	case r.timer != nil:
		r.timer.Reset(r.every)
	}
	r.mu.Unlock()
	if n > 0 { // the log may have to wait for its database
		app.Logger().Warn(store.RejectedMessage, "error", last.Error, "remedy", last.Remedy, "count", n)
		fmt.Fprintf(os.Stderr, "Rejected %s, the last because: %s. Remedy: %s.\n", english.Plural(n, "ModelRiver webhook", ""), last.Error, last.Remedy)
	}
	r.write(app)
}

// write begins to write what was counted, unless that goes on already, and returns what is
// closed when it has ended.
func (r *rejections) write(app core.App) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writing != nil {
		return r.written
	}
	r.written = make(chan struct{})
	if len(r.unwritten) == 0 || !r.leads() {
		close(r.written)
		return r.written
	}
	r.writing, r.unwritten = r.unwritten, nil
	r.writes++
	rows := r.writing
	r.commits.Add(&commit.Write{
		Run: func(tx core.App) error {
			for _, row := range rows {
				if err := store.AddRejection(tx, row); err != nil {
					return err
				}
			}
			return nil
		},
		Done: func(err error) { r.wrote(app, err) },
	})
	return r.written
}

// wrote ends writing. What could not be written waits for the next time.
func (r *rejections) wrote(app core.App, err error) {
	if err != nil {
		app.Logger().Warn("Rejected webhooks are counted, but the counts can't be written yet", "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		since := r.unwritten
		r.unwritten = r.writing
		for _, counted := range since {
			r.keep(counted)
		}
	}
	r.writing = nil
	close(r.written)
}

// stop tells and writes what is left.
func (r *rejections) stop(app core.App) {
	r.mu.Lock()
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	r.mu.Unlock()
	r.tell(app)
	timeout := time.After(writeGrace)
	for range 2 { // what is being written, and what was counted since
		select {
		case <-r.write(app):
		case <-timeout:
			return
		}
	}
}

// withUnwritten has something read from the table together with what is not in it yet. What is
// being written may be in both, and would count twice: it waits for that to end, unless the
// database hangs, and reads again if writing begins meanwhile.
func (r *rejections) withUnwritten(read func(unwritten []store.Rejection) error) error {
	for hangs := time.After(writeGrace); ; {
		r.mu.Lock()
		unwritten, writes, writing, written := slices.Concat(r.writing, r.unwritten), r.writes, r.writing != nil, r.written
		r.mu.Unlock()
		if writing {
			select {
			case <-written:
				continue
			case <-hangs:
			}
		}
		err := read(unwritten)
		r.mu.Lock()
		meanwhile := r.writes != writes
		r.mu.Unlock()
		if err != nil || writing || !meanwhile {
			return err
		}
	}
}

// sinceStart returns how many were rejected for each reason.
func (r *rejections) sinceStart() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.counts)
}

// newestFirst returns the latest rejections.
func (r *rejections) newestFirst() []rejection {
	r.mu.Lock()
	defer r.mu.Unlock()
	latest := make([]rejection, 0, maxLatest)
	for i := r.total - 1; i >= max(r.total-maxLatest, 0); i-- {
		latest = append(latest, r.latest[i%maxLatest])
	}
	return latest
}
