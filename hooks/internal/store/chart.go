package store

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// A Chart shows what went on in the last hours.
type Chart struct {
	Seconds int      `json:"seconds"` // length of a bucket
	Buckets []Bucket `json:"buckets"` // oldest first; the last one goes on
}

// A Bucket is what happened from a time on.
type Bucket struct {
	At       types.DateTime `json:"at"`
	Received int            `json:"received"` // as in [Figures]
	Failed   int            `json:"failed"`   // callbacks received then that are not retried yet
	Rejected int            `json:"rejected"`

	// Median and P95 are the time to callback, as in [Figures], of the latest that were
	// delivered then.
	Median *int64 `json:"median"`
	P95    *int64 `json:"p95"`
}

// chartBuckets is how many buckets the hours are shown in.
var chartBuckets = map[int]int{24: 24, 7 * 24: 28}

// ChartHours reports whether there is a chart of so many hours.
func ChartHours(hours int) bool { return chartBuckets[hours] > 0 }

// settled is how long after its end a bucket can still change: a commit comes after the time
// that is written in it.
const settled = time.Minute

// Bounds of one bucket's times to callback: how many are taken, and how many are looked at,
// of which a retry of many may have been later than their window.
const (
	timesOf    = 2000
	timesLooks = 20_000
)

// The queries of a chart and of a bucket. They read indexes only.
const (
	countFailedBy = `SELECT (unixepoch(created) - {:begin}) / {:seconds} AS bucket, COUNT(*) AS n FROM modelriverCallbacks
		WHERE state = 'failed' AND created >= {:from} GROUP BY 1`

	countStoredIn  = "SELECT COUNT(*) FROM aiContent WHERE created >= {:from} AND created < {:to}"
	countRefusedIn = "SELECT COUNT(*) FROM modelriverCallbacks WHERE payload != '' AND created >= {:from} AND created < {:to}"
	timesIn        = `
		SELECT took FROM (
			SELECT CAST(ROUND((unixepoch(deliveredAt, 'subsec') - unixepoch(created, 'subsec')) * 1000) AS INTEGER) AS took
			FROM modelriverCallbacks WHERE state = 'delivered' AND deliveredAt >= {:from} AND deliveredAt < {:to}
			ORDER BY deliveredAt DESC LIMIT {:looks}
		) WHERE took <= {:window} LIMIT {:n}`
)

// A ChartReader reads charts of one app. It remembers what can't change any more.
type ChartReader struct {
	mu     sync.Mutex
	closed map[string]Bucket // by length and time
}

// Read returns the chart of so many hours, which [ChartHours] has. window is how long a
// callback is tried.
func (c *ChartReader) Read(app core.App, hours int, now time.Time, window time.Duration, unwritten []Rejection) (Chart, error) {
	n := chartBuckets[hours]
	length := time.Duration(hours) * time.Hour / time.Duration(n)
	begin := now.UTC().Truncate(length).Add(-time.Duration(n-1) * length)
	rejections, err := ReadRejections(app, begin, unwritten)
	if err != nil {
		return Chart{}, err
	}
	chart := Chart{Seconds: int(length.Seconds()), Buckets: make([]Bucket, n)}
	for i := range chart.Buckets {
		at := begin.Add(time.Duration(i) * length)
		bucket, err := c.bucket(app, at, length, now, window)
		if err != nil {
			return Chart{}, err
		}
		chart.Buckets[i] = bucket
	}
	if err := chart.countFailed(app, begin); err != nil {
		return Chart{}, err
	}
	for _, r := range rejections {
		if i := int(r.Hour.Time().Sub(begin) / length); i < n {
			chart.Buckets[i].Rejected += r.Count
		}
	}
	c.forgetBefore(now.Add(-8 * 24 * time.Hour))
	return chart, nil
}

// countFailed counts anew each time: any may be retried.
func (c *Chart) countFailed(app core.App, begin time.Time) error {
	var counts []struct {
		Bucket int `db:"bucket"`
		N      int `db:"n"`
	}
	err := app.ConcurrentDB().NewQuery(countFailedBy).Bind(dbx.Params{
		"begin": begin.Unix(), "seconds": c.Seconds, "from": DateTime(begin),
	}).All(&counts)
	for _, count := range counts {
		if count.Bucket < len(c.Buckets) { // or the clock was set back
			c.Buckets[count.Bucket].Failed = count.N
		}
	}
	return err
}

// bucket returns one bucket without what failed or was rejected. What was refused is counted anew
// each time: it may be stored later.
func (c *ChartReader) bucket(app core.App, at time.Time, length time.Duration, now time.Time, window time.Duration) (bucket Bucket, err error) {
	params := dbx.Params{"from": DateTime(at), "to": DateTime(at.Add(length))}
	key := fmt.Sprint(length, at.Unix())
	closed := now.Sub(at) > length+settled
	bucket, known := c.recall(key, closed)
	if !known {
		if bucket, err = readBucket(app, at, params, window); err != nil {
			return bucket, err
		}
		if closed {
			c.remember(key, bucket)
		}
	}
	var refused int
	err = app.ConcurrentDB().NewQuery(countRefusedIn).Bind(params).Row(&refused)
	bucket.Received += refused
	return bucket, err
}

func readBucket(app core.App, at time.Time, params dbx.Params, window time.Duration) (Bucket, error) {
	bucket := Bucket{At: DateTime(at)}
	if err := app.ConcurrentDB().NewQuery(countStoredIn).Bind(params).Row(&bucket.Received); err != nil {
		return bucket, err
	}
	times, err := readTimes(app, params["from"], params["to"], window, timesOf)
	bucket.Median, bucket.P95 = medianTime(times), p95Time(times)
	return bucket, err
}

// readTimes returns the times to callback, in milliseconds, of the n latest that were delivered
// from one time to another and within their window.
func readTimes(app core.App, from, to any, window time.Duration, n int) (times []int64, err error) {
	err = app.ConcurrentDB().NewQuery(timesIn).Bind(dbx.Params{
		"from": from, "to": to, "window": window.Milliseconds(), "looks": timesLooks, "n": n,
	}).Column(&times)
	return times, err
}

// p95Time returns the time that 95 of 100 do not exceed, or nil if there are no times, which it
// sorts.
func p95Time(times []int64) *int64 {
	if len(times) == 0 {
		return nil
	}
	slices.Sort(times)
	p95 := times[(len(times)*95+99)/100-1]
	return &p95
}

// recall returns a bucket that is remembered. One that is not closed, as the clock was set back,
// is forgotten.
func (c *ChartReader) recall(key string, closed bool) (bucket Bucket, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !closed {
		delete(c.closed, key)
	}
	bucket, known = c.closed[key]
	return bucket, known
}

func (c *ChartReader) remember(key string, bucket Bucket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed == nil {
		c.closed = map[string]Bucket{}
	}
	c.closed[key] = bucket
}

// Forget forgets what is remembered. A bucket that was read on a node that had not all of it yet,
// of those that share the database, is not what it is now.
func (c *ChartReader) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = nil
}

// forgetBefore forgets buckets that no chart shows any more.
func (c *ChartReader) forgetBefore(before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, bucket := range c.closed {
		if bucket.At.Time().Before(before) {
			delete(c.closed, key)
		}
	}
}
