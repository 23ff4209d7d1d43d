package commit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// hold keeps the committer from writing until it is called.
func hold(c *Committer) (release func()) {
	began, held := make(chan struct{}), make(chan struct{})
	c.Add(&Write{Run: func(core.App) error {
		close(began)
		<-held
		return nil
	}, Done: func(error) {}})
	<-began
	return func() { close(held) }
}

func TestCommitter(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	c := New(app, "aiContent")

	t.Run("order of answers is the order of writes", func(t *testing.T) {
		var mu sync.Mutex
		var order []int
		var group sync.WaitGroup
		hold := make(chan struct{})
		c.Add(&Write{Run: func(core.App) error { <-hold; return nil }, Done: func(error) {}})
		for i := range 100 {
			group.Add(1)
			c.Add(&Write{Run: func(core.App) error { return nil }, Done: func(error) {
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				group.Done()
			}})
		}
		close(hold)
		group.Wait()
		for i, got := range order {
			if got != i {
				t.Fatalf("order: got %v", order)
			}
		}
	})
	t.Run("a refused write fails alone, and its neighbours are committed once", func(t *testing.T) {
		if _, err := app.DB().NewQuery("CREATE TABLE written (i INTEGER PRIMARY KEY)").Execute(); err != nil {
			t.Fatal(err)
		}
		hold := make(chan struct{})
		c.Add(&Write{Run: func(core.App) error { <-hold; return nil }, Done: func(error) {}})
		bad := errors.New("bad")
		results := make([]error, 10)
		var group sync.WaitGroup
		for i := range results {
			group.Add(1)
			c.Add(&Write{Run: func(tx core.App) error {
				if i == 4 {
					return bad
				}
				_, err := Query(tx, "INSERT INTO written VALUES ({:i})").Bind(dbx.Params{"i": i}).Execute()
				return err
			}, Done: func(err error) {
				results[i] = err
				group.Done()
			}})
		}
		close(hold)
		group.Wait()
		for i, err := range results {
			if want := map[bool]error{true: bad}[i == 4]; !errors.Is(err, want) {
				t.Errorf("write %d: got %v, want %v", i, err, want)
			}
		}
		var rows int
		if err := app.DB().NewQuery("SELECT COUNT(*) FROM written").Row(&rows); err != nil || rows != 9 {
			t.Errorf("rows: got %d (%v), want 9", rows, err)
		}
	})
	t.Run("a panic is an error", func(t *testing.T) {
		if err := c.Do(func(core.App) error { panic("oops") }); err == nil || !strings.Contains(err.Error(), "oops") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a database that fails is not asked again for each write", func(t *testing.T) {
		hold := make(chan struct{})
		c.Add(&Write{Run: func(core.App) error { <-hold; return nil }, Done: func(error) {}})
		runs := 0
		var group sync.WaitGroup
		for range 5 {
			group.Add(1)
			c.Add(&Write{Run: func(core.App) error { runs++; return codedError(13) }, Done: func(err error) { // FULL
				if !errors.Is(err, codedError(13)) {
					t.Errorf("got %v", err)
				}
				group.Done()
			}})
		}
		close(hold)
		group.Wait()
		if runs != 2 {
			t.Errorf("runs: got %d, want one, and one without what failed", runs)
		}
	})
	t.Run("what waits too long is taken back", func(t *testing.T) {
		hold := make(chan struct{})
		c.Add(&Write{Run: func(core.App) error { <-hold; return nil }, Done: func(error) {}})
		w := &Write{Run: func(core.App) error { t.Error("ran"); return nil }, Done: func(error) { t.Error("done") }}
		c.Add(w)
		c.withdraw(w)
		close(hold)
		if err := c.Do(func(core.App) error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
}

// A hook after create that hangs ends nothing either where its batch had to be run again,
// each write in a transaction of its own.
func TestHookHangsBehindARefusal(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	content := core.NewBaseCollection("content")
	content.Fields.Add(&core.TextField{Name: "title"})
	if err := app.Save(content); err != nil {
		t.Fatal(err)
	}
	c := New(app, "content")
	c.Bind()
	own := SaveHooks(app)
	if c.OwnHooks = func() int { return own }; c.hooked() {
		t.Fatal("hooks would see a batch run twice")
	}
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	app.OnRecordAfterCreateSuccess("content").BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("title") == "hangs" {
			<-hang
		}
		return e.Next()
	})

	ended := make(chan string, 10)
	add := func(name string, run func(tx core.App) error) {
		c.Add(&Write{Run: run, Done: func(error) { ended <- name }})
	}
	var order []string
	release := hold(c)
	add("hangs", func(tx core.App) error {
		record := core.NewRecord(content)
		record.Set("title", "hangs")
		return tx.Save(record)
	})
	add("refused", func(core.App) error { return errors.New("no") })
	add("neighbour", func(core.App) error { return nil })
	release()
	add("later", func(core.App) error { return nil })
	for len(order) < 4 {
		select {
		case name := <-ended:
			order = append(order, name)
		case <-time.After(2 * MaxWait):
			t.Fatalf("writes that ended: got only %q", order)
		}
	}
	for i, want := range []string{"hangs", "refused", "neighbour", "later"} {
		if order[i] != want {
			t.Fatalf("order: got %q", order)
		}
	}
}
func TestBatchIsBounded(t *testing.T) {
	t.Parallel()
	batches := func(t *testing.T, c *Committer, n, size int, run func()) map[*core.TxAppInfo]int {
		t.Helper()
		var mu sync.Mutex
		var order []int
		of := map[*core.TxAppInfo]int{}
		release := hold(c)
		var group sync.WaitGroup
		for i := range n {
			group.Add(1)
			c.Add(&Write{Size: size, Run: func(tx core.App) error {
				run()
				mu.Lock()
				defer mu.Unlock()
				of[tx.TxInfo()]++
				return nil
			}, Done: func(err error) {
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				group.Done()
			}})
		}
		release()
		group.Wait()
		if !slices.IsSorted(order) || len(order) != n {
			t.Errorf("order of the answers: got %v", order)
		}
		return of
	}
	for _, row := range []struct {
		name    string
		n, size int
		run     func()
		yields  bool
		most    int
	}{
		{"by count", MaxBatch + 10, 0, func() {}, false, MaxBatch},
		{"by bytes", 10, MaxBatchSize/3 + 1, func() {}, false, 2},
		{"by bytes of each one", 3, 2 * MaxBatchSize, func() {}, false, 1},
		{"by the time of hooks", 5, 0, func() { time.Sleep(MaxBatchTime * 2 / 3) }, false, 2},
		{"by who goes first", 5, 0, func() { time.Sleep(YieldTime * 2 / 3) }, true, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := New(apptest.NewApp(t), "aiContent")
			c.Yields = func() bool { return row.yields }
			for _, got := range batches(t, c, row.n, row.size, row.run) {
				if got > row.most {
					t.Errorf("writes of a batch: got %d, want at most %d", got, row.most)
				}
			}
		})
	}
}

// A codedError is a driver's error, with its code.
type codedError int

func (e codedError) Error() string { return fmt.Sprintf("SQL error (%d)", int(e)) }
func (e codedError) Code() int     { return int(e) }
