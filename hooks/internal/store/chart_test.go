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
	"github.com/pocketbase/pocketbase/tests"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// A chartApp is an app whose rows a test makes.
type chartApp struct {
	*tests.TestApp
	t    *testing.T
	rows int
}

func (a *chartApp) id() string {
	a.rows++
	return fmt.Sprintf("%015d", a.rows)
}

func (a *chartApp) content(created time.Time) {
	a.insert(Content, dbx.Params{"id": a.id(), "title": "T", "source": "modelriver", "created": DateTime(created), "updated": DateTime(created)})
}

// callback inserts one that took a time, if it was delivered, or is refused.
func (a *chartApp) callback(state string, created time.Time, took time.Duration, payload string) {
	delivered := ""
	if state == Delivered {
		delivered = DateTime(created.Add(took)).String()
	}
	a.insert(Callbacks, dbx.Params{"id": a.id(), "state": state, "created": DateTime(created), "deliveredAt": delivered, "payload": payload})
}

func (a *chartApp) insert(table string, values dbx.Params) {
	a.t.Helper()
	if _, err := a.NonconcurrentDB().Insert(table, values).Execute(); err != nil {
		a.t.Fatal(err)
	}
}

func newChartApp(t *testing.T) *chartApp { return &chartApp{TestApp: apptest.NewApp(t), t: t} }

func shownBucket(b Bucket) string {
	value := func(v *int64) any {
		if v == nil {
			return "-"
		}
		return *v
	}
	return fmt.Sprint(b.At, " ", b.Received, b.Failed, b.Rejected, " ", value(b.Median), " ", value(b.P95))
}

func TestChart(t *testing.T) {
	t.Parallel()
	app := newChartApp(t)
	hour := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	now := hour.Add(20 * time.Minute)
	const window = 5 * time.Minute
	var reader ChartReader
	expect := func(hours, bucket int, want string) {
		t.Helper()
		chart, err := reader.Read(app, hours, now, window, []Rejection{
			{Hour: DateTime(hour), Reason: "x", Count: 2}, {Hour: DateTime(hour.Add(time.Hour)), Reason: "x", Count: 9},
		})
		if err != nil {
			t.Fatal(err)
		}
		n := map[int]int{24: 24, 168: 28}[hours]
		if len(chart.Buckets) != n || chart.Seconds != hours*3600/n {
			t.Fatalf("%d hours: got %d buckets of %d s", hours, len(chart.Buckets), chart.Seconds)
		}
		if got := shownBucket(chart.Buckets[n-1+bucket]); got != want {
			t.Errorf("%d hours, bucket %d: got %s, want %s", hours, bucket, got, want)
		}
	}
	last := hour.Add(-time.Hour)

	app.content(hour.Add(-time.Millisecond))
	app.content(hour)
	app.callback(Failed, hour, 0, "{}")              // refused
	app.callback(Failed, last, 0, "")                // of stored content
	app.callback(Pending, last, 0, "")               // not yet
	app.callback(Delivered, last, time.Hour, "")     // a person's retry, in this hour
	app.callback(Delivered, last, 6*time.Minute, "") // the same, in the last
	for i := range 100 {
		app.callback(Delivered, last.Add(time.Minute), time.Duration(i+1)*time.Second, "")
	}
	err := app.RunInTransaction(func(tx core.App) error {
		return AddRejection(tx, Rejection{Hour: DateTime(last), Reason: "x", Count: 3})
	})
	if err != nil {
		t.Fatal(err)
	}

	expect(24, 0, "2026-03-02 10:00:00.000Z 2 1 2 - -")
	expect(24, -1, "2026-03-02 09:00:00.000Z 1 1 3 50500 95000")
	expect(24, -2, "2026-03-02 08:00:00.000Z 0 0 0 - -")
	expect(24, -23, "2026-03-01 11:00:00.000Z 0 0 0 - -")
	expect(168, 0, "2026-03-02 06:00:00.000Z 3 2 14 50500 95000")
	expect(168, -27, "2026-02-23 12:00:00.000Z 0 0 0 - -")

	// A closed bucket is not counted again, but for what is failed now.
	app.content(last)
	app.content(hour)
	if _, err := app.NonconcurrentDB().NewQuery("UPDATE modelriverCallbacks SET state = 'delivered' WHERE state = 'failed' AND payload = ''").Execute(); err != nil {
		t.Fatal(err)
	}
	expect(24, -1, "2026-03-02 09:00:00.000Z 1 0 3 50500 95000")
	expect(24, 0, "2026-03-02 10:00:00.000Z 3 1 2 - -")

	// The clock was wrong: what was closed goes on, and is counted.
	now = last.Add(30 * time.Minute)
	hour = last
	expect(24, 0, "2026-03-02 09:00:00.000Z 2 0 5 50500 95000")
	now = last.Add(90 * time.Minute)
	expect(24, -1, "2026-03-02 09:00:00.000Z 2 0 5 50500 95000")
}

// TestChartReadsIndexesOnly keeps the chart cheap: rows carry bodies of megabytes.
func TestChartReadsIndexesOnly(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	for query, index := range map[string]string{
		countStoredIn: "COVERING INDEX idx_modelriver_created", countRefusedIn: "idx_modelriver_refused",
		timesIn: "COVERING INDEX idx_modelriver_delivered", countFailedBy: "COVERING INDEX idx_modelriver_",
	} {
		var steps []struct {
			Detail string `db:"detail"`
		}
		if err := app.ConcurrentDB().NewQuery("EXPLAIN QUERY PLAN " + query).
			Bind(dbx.Params{"begin": 1, "seconds": 1, "from": "a", "to": "b", "looks": 1, "n": 1, "window": 1}).All(&steps); err != nil {
			t.Fatal(err)
		}
		if plan := fmt.Sprint(steps); !strings.Contains(plan, index) || strings.Contains(plan, "TEMP B-TREE FOR ORDER BY") {
			t.Errorf("%s\ngot %s, want %s", query, plan, index)
		}
	}
}

// fillChart inserts as many records and callbacks as CHART_ROWS says, by default 10,000, of which
// the last ones came now and the first ones as many days ago as CHART_DAYS says, by default 30.
func fillChart(b *testing.B, now time.Time) (app core.App, name string) {
	number := func(name string, fallback int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return fallback
	}
	n, days := number("CHART_ROWS", 10_000), number("CHART_DAYS", 30)
	app = apptest.NewApp(b)
	for _, query := range []string{
		`INSERT INTO aiContent (id, title, body, created, updated)
			SELECT printf('%015d', i), 'Title', 'A short text.', at, at
			FROM (WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {:n})
				SELECT i, strftime('%Y-%m-%d %H:%M:%fZ', {:now} - ({:n} - i) * {:step}, 'unixepoch') AS at FROM n)`,
		`INSERT INTO modelriverCallbacks (id, record, state, host, body, payload, created, updated, deliveredAt)
			SELECT id, id, CASE WHEN id % 100 = 2 THEN 'failed' ELSE 'delivered' END, 'api.modelriver.com', '{"data":{}}', '', created, created,
				CASE WHEN id % 100 != 2 THEN strftime('%Y-%m-%d %H:%M:%fZ', created, '+0.1 seconds') ELSE '' END
			FROM aiContent`,
	} {
		_, err := app.NonconcurrentDB().NewQuery(query).Bind(dbx.Params{
			"n": n, "now": now.Unix(), "step": float64(days) * 86400 / float64(n),
		}).Execute()
		if err != nil {
			b.Fatal(err)
		}
	}
	return app, fmt.Sprintf("%d rows in %d days", n, days)
}

func BenchmarkChart(b *testing.B) {
	now := time.Now()
	app, name := fillChart(b, now)
	b.Run(name+", figures and ends", func(b *testing.B) { // as for metrics
		for b.Loop() {
			if _, err := ReadAll(app, now, time.Time{}, time.Minute, nil); err != nil {
				b.Fatal(err)
			}
			if _, err := ReadEnds(app); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, hours := range []int{24, 168} {
		var kept ChartReader
		for again, reader := range map[string]func() *ChartReader{
			"first": func() *ChartReader { return &ChartReader{} },
			"again": func() *ChartReader { return &kept },
		} {
			b.Run(fmt.Sprintf("%s, %d hours, %s", name, hours, again), func(b *testing.B) {
				if _, err := kept.Read(app, hours, now, time.Minute, nil); err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					if _, err := reader().Read(app, hours, now, time.Minute, nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
