//go:build linux

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

const rearmed = 30 // callbacks that are sent again in one measurement of outbox

// A wake is what one measurement of outbox found.
type wake struct{ p50, longest time.Duration }

// outbox measures how long a failed callback takes to be sent once someone sets it back
// to pending, while others wait for a later attempt.
func (b *bench) outbox() error {
	waiting := []int{10, 100_000}
	data, tokens := map[int]string{}, map[int]string{}
	for _, rows := range waiting {
		progress("outbox: inserting %d waiting callbacks", rows)
		data[rows] = filepath.Join(b.dir, fmt.Sprintf("waiting%d", rows))
		defer os.RemoveAll(data[rows]) // another revision makes its own
		err := makeData(data[rows], false, func(app core.App) (err error) {
			if tokens[rows], err = superuserToken(app); err != nil {
				return err
			}
			return addWaiting(app, rows)
		})
		if err != nil {
			return err
		}
	}

	wakes := map[int][]wake{}
	for round := range b.rounds {
		for _, rows := range waiting {
			w, err := b.measureWake(data[rows], tokens[rows])
			if err != nil {
				return err
			}
			progress("round %d/%d  outbox  %6d waiting  p50 %s ms  longest %s ms", round+1, b.rounds, rows, ms(w.p50), ms(w.longest))
			wakes[rows] = append(wakes[rows], w)
		}
	}
	t := &table{
		title: "Outbox: from setting a failed callback back to pending until it arrives",
		head:  []string{"waiting callbacks", "p50 ms", fmt.Sprintf("longest of %d ms", rearmed)},
	}
	for _, rows := range waiting {
		t.add(fmt.Sprint(rows),
			ms(medianOf(wakes[rows], func(w wake) time.Duration { return w.p50 })),
			ms(medianOf(wakes[rows], func(w wake) time.Duration { return w.longest })))
	}
	b.tables = append(b.tables, t)
	b.target("100,000 waiting callbacks: wake p50 / with 10", ratioOf(wakes[100_000], wakes[10], func(w wake) float64 { return float64(w.p50) }), "≤", 1.2)
	return nil
}

func rearmedId(i int) string { return fmt.Sprintf("rearmed%08d", i) }

func addWaiting(app core.App, rows int) error {
	return app.RunInTransaction(func(tx core.App) error {
		insert := insertCallback(tx.NonconcurrentDB()).Prepare()
		defer insert.Close()
		at := time.Now().UTC().Format(dateLayout)
		add := func(id, state string) error {
			row := callbackRow(id, state, at)
			row["record"] = ""
			_, err := insert.Bind(row).Execute()
			return err
		}
		for i := range rows {
			if err := add(fmt.Sprintf("waiting%08d", i), "pending"); err != nil {
				return err
			}
		}
		for i := range rearmed {
			if err := add(rearmedId(i), "failed"); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *bench) measureWake(data, token string) (result wake, err error) {
	if err := b.ctx.Err(); err != nil {
		return result, err
	}
	receiver := startWakeReceiver()
	defer receiver.Close()
	dir, err := os.MkdirTemp(b.dir, "server")
	if err != nil {
		return result, err
	}
	defer os.RemoveAll(dir)
	if err := copyData(data, filepath.Join(dir, "pb_data")); err != nil {
		return result, err
	}
	// The next attempt is as far ahead as one can be: the window is five minutes.
	now := time.Now().UTC()
	err = changeData(dir, `UPDATE modelriverCallbacks SET url = {:url} || '/v1/callback/' || id, host = {:host}, nextAttempt = {:next}, expires = {:expires}`, dbx.Params{
		"url": receiver.URL, "host": strings.TrimPrefix(receiver.URL, "http://"),
		"next": now.Add(4 * time.Minute).Format(dateLayout), "expires": now.Add(5 * time.Minute).Format(dateLayout),
	})
	if err != nil {
		return result, err
	}
	s, _, err := b.serveIn(b.oursKind(), dir)
	if err != nil {
		return result, err
	}
	defer s.stop()

	defer patience.CloseIdleConnections()
	var times []time.Duration
	for i := range rearmed {
		receiver.expected <- rearmedId(i)
		began := time.Now()
		if err := s.patch(token, "modelriverCallbacks", rearmedId(i), `{"state":"pending"}`); err != nil {
			return result, err
		}
		select {
		case at := <-receiver.arrived:
			times = append(times, at.Sub(began))
		case path := <-receiver.unexpected:
			return result, fmt.Errorf("a callback that should wait was sent: %s", path)
		case <-time.After(30 * time.Second):
			return result, fmt.Errorf("callback %d was not sent within 30 seconds", i)
		case <-b.ctx.Done():
			return result, b.ctx.Err()
		}
		// Not in step with anything: the row of the one before is being written.
		time.Sleep(30 * time.Millisecond)
	}
	return wake{p50: percentile(times, 50), longest: percentile(times, 100)}, nil
}

// A wakeReceiver accepts callbacks and says when the expected one arrives.
type wakeReceiver struct {
	*httptest.Server
	expected   chan string
	arrived    chan time.Time
	unexpected chan string // a path
}

func startWakeReceiver() *wakeReceiver {
	receiver := &wakeReceiver{expected: make(chan string, 1), arrived: make(chan time.Time, 1), unexpected: make(chan string, 1)}
	receiver.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, `{"success":true}`)
		select {
		case id := <-receiver.expected:
			if strings.HasSuffix(r.URL.Path, "/"+id) {
				receiver.arrived <- now
				return
			}
		default:
		}
		select {
		case receiver.unexpected <- r.URL.Path:
		default:
		}
	}))
	return receiver
}
