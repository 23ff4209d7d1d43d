package store

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// insertRows writes rows of both collections as they would lie in the database: n
// records, each with a callback in the state of its turn, created one per minute up to
// now and delivered 100 ms later, and with it 1 in 1000 refused.
func insertRows(t testing.TB, app core.App, now time.Time, n int) {
	t.Helper()
	for _, query := range []string{
		`INSERT INTO aiContent (id, title, body, created, updated)
			SELECT printf('%015d', i), 'Title', {:body}, at, at
			FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {:n})
				SELECT i, strftime('%Y-%m-%d %H:%M:%fZ', {:now}, '-' || i || ' minutes') AS at FROM n)`,
		`INSERT INTO modelriverCallbacks (id, record, state, host, body, payload, created, updated, deliveredAt)
			SELECT id, id, CASE WHEN id % 1000 = 1 THEN 'failed' WHEN id % 100 = 2 THEN 'failed' WHEN id % 1000 = 3 THEN 'pending' ELSE 'delivered' END,
				'api.modelriver.com', body, CASE WHEN id % 1000 = 1 THEN '{}' ELSE '' END, created, created,
				CASE WHEN id % 1000 != 1 AND id % 100 != 2 AND id % 1000 != 3 THEN strftime('%Y-%m-%d %H:%M:%fZ', created, '+0.1 seconds') ELSE '' END
			FROM aiContent`,
	} {
		_, err := app.NonconcurrentDB().NewQuery(query).Bind(dbx.Params{
			"n": n, "now": now.UTC().Format("2006-01-02 15:04:05"), "body": strings.Repeat("x", 2000),
		}).Execute()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestFiguresCountToday(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	if figures, err := ReadFigures(app, time.Now(), time.Minute); err != nil || figures.Median != nil || figures.Received != 0 {
		t.Fatalf("of an empty database: got %+v, %v", figures, err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	insertRows(t, app, now, 2000)
	got, err := ReadFigures(app, now.Add(-500*time.Minute), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	// Of 1 to 500: 1 is refused; 2, 102, … 402 failed; 3 waits. Of 1 to 2000: 1 and 1001
	// were refused, 20 failed, 3 and 1003 wait.
	want := Figures{Since: got.Since, Stored: 500, Refused: 1, Received: 501, Delivered: 493, Failed: 22, Waiting: 2}
	median, p95 := got.Median, got.P95
	got.Median, got.P95 = nil, nil
	if got != want || median == nil || *median != 100 || p95 == nil || *p95 != 100 {
		t.Errorf("got %+v, median %v, p95 %v, want %+v, both 100", got, median, p95, want)
	}
}

// TestFiguresReadIndexesOnly keeps the figures cheap: rows carry bodies of megabytes.
func TestFiguresReadIndexesOnly(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	var plans []string
	insertRows(t, app, time.Now(), 100)
	for _, query := range []string{countStored, countRefused, countDelivered, countFailed, countWaiting, timesIn} {
		var steps []struct {
			Detail string `db:"detail"`
		}
		if err := app.ConcurrentDB().NewQuery("EXPLAIN QUERY PLAN " + query).
			Bind(dbx.Params{"since": DateTime(time.Now()), "n": medianOf, "looks": timesLooks, "from": "", "to": "~", "window": 60_000}).All(&steps); err != nil {
			t.Fatal(err)
		}
		for _, step := range steps {
			plans = append(plans, step.Detail)
			table := strings.HasPrefix(step.Detail, "SCAN") || strings.HasPrefix(step.Detail, "SEARCH")
			if table && step.Detail != "SCAN (subquery-1)" && !strings.Contains(step.Detail, "COVERING INDEX") && !strings.Contains(step.Detail, "idx_modelriver_refused") {
				t.Errorf("%s\nreads rows: %s", query, step.Detail)
			}
		}
	}
	t.Log(strings.Join(plans, "\n"))
}

// BenchmarkFigures reads the figures of as many rows as FIGURES_ROWS says, by default 10,000.
func BenchmarkFigures(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("FIGURES_ROWS"))
	if err != nil {
		n = 10_000
	}
	app := apptest.NewApp(b)
	now := time.Now()
	insertRows(b, app, now, n)
	for _, days := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("%d rows, %d days", n, days), func(b *testing.B) {
			for b.Loop() {
				if _, err := ReadFigures(app, now.Add(-time.Duration(days)*24*time.Hour), time.Minute); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestMedianIsOfWhatNobodyWaitedFor takes the true median, and only of callbacks that
// were accepted within their window: later ones say how long a person took to retry.
func TestMedianIsOfWhatNobodyWaitedFor(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	const window = 5 * time.Minute
	now := time.Now().UTC().Truncate(time.Millisecond)
	add := func(took time.Duration) {
		t.Helper()
		created := DateTime(now.Add(-time.Hour))
		_, err := app.NonconcurrentDB().Insert(Callbacks, dbx.Params{
			"id": core.GenerateDefaultRandomId(), "state": Delivered, "created": created, "updated": created,
			"deliveredAt": DateTime(created.Time().Add(took)),
		}).Execute()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		took time.Duration
		want int64 // -1 if there is none
	}{
		{3 * time.Hour, -1},
		{100 * time.Millisecond, 100},
		{300 * time.Millisecond, 200}, // the mean of the two
		{window, 300},
		{window + time.Millisecond, 300},
		{0, 200},
	} {
		add(step.took)
		figures, err := ReadFigures(app, now, window)
		if err != nil {
			t.Fatal(err)
		}
		got := int64(-1)
		if figures.Median != nil {
			got = *figures.Median
		}
		if got != step.want {
			t.Errorf("after one that took %s: got %d ms, want %d", step.took, got, step.want)
		}
	}
}

// After a retry of many, the latest were all delivered late: the figures, which are read every
// few seconds, look at so many of them only.
func TestMedianLooksAtSoMany(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	_, err := app.NonconcurrentDB().NewQuery(`
		WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {:n})
		INSERT INTO modelriverCallbacks (id, state, created, deliveredAt)
		SELECT printf('%015d', i), 'delivered', '2026-01-01 00:00:00.000Z', iif(i = 0, '2026-01-01 00:00:00.100Z', '2026-01-02 00:00:00.000Z') FROM n`,
	).Bind(dbx.Params{"n": timesLooks - 1}).Execute()
	if err != nil {
		t.Fatal(err)
	}
	if figures, err := ReadFigures(app, time.Time{}, time.Minute); err != nil || figures.Median == nil || *figures.Median != 100 {
		t.Errorf("within the bound: got %+v, %v", figures, err)
	}
	if _, err := app.NonconcurrentDB().NewQuery(`
		INSERT INTO modelriverCallbacks (id, state, created, deliveredAt)
		VALUES ('onemore', 'delivered', '2026-01-01 00:00:00.000Z', '2026-01-02 00:00:00.000Z')`).Execute(); err != nil {
		t.Fatal(err)
	}
	if figures, err := ReadFigures(app, time.Time{}, time.Minute); err != nil || figures.Median != nil {
		t.Errorf("beyond it: got %+v, %v", figures, err)
	}
}
