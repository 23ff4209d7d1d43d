//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// size compares ingest into an empty database with ingest beside a million records.
func (b *bench) size() error {
	const records = 1_000_000
	const connections = 32
	var v variant
	for _, candidate := range b.variants() {
		if candidate.name == "B" {
			v = candidate
		}
	}
	progress("size: inserting %d records", records)
	dir := filepath.Join(b.dir, "million")
	defer os.RemoveAll(dir)
	err := makeData(filepath.Join(dir, "pb_data"), false, func(app core.App) error { return addContent(app, records) })
	if err != nil {
		return err
	}

	var empty, full []sample
	for round := range b.rounds {
		s, err := b.measureIngest(v, b.privateData, connections)
		if err != nil {
			return err
		}
		b.progressSample(round, connections, "empty", s)
		empty = append(empty, s)

		// The callbacks of the round before would be sent again.
		if err := change(dir, "DELETE FROM modelriverCallbacks WHERE state = 'pending'", nil); err != nil {
			return err
		}
		server, _, err := b.serveIn(v.kind, dir)
		if err != nil {
			return err
		}
		s, err = b.measureServer(v, server, connections, 1+round*1_000_000)
		server.end(syscall.SIGKILL)
		if err != nil {
			return err
		}
		b.progressSample(round, connections, "full", s)
		full = append(full, s)
	}
	b.sizeTable(empty, full, records, connections)
	return nil
}

func (b *bench) sizeTable(empty, full []sample, records, connections int) {
	t := &table{
		title: fmt.Sprintf("Size: B beside %d records and as many delivered callbacks, %d connections", records, connections),
		head:  []string{"database", "rps", "p50 ms", "p99 ms", "CPU/request µs", "memory MB"},
	}
	for _, row := range []struct {
		name    string
		samples []sample
	}{{"empty", empty}, {"1,000,000 records", full}} {
		t.add(row.name,
			fmt.Sprintf("%.0f", median(each(row.samples, func(s sample) float64 { return s.rps }))),
			ms(median(each(row.samples, func(s sample) time.Duration { return s.p50 }))),
			ms(median(each(row.samples, func(s sample) time.Duration { return s.p99 }))),
			us(median(each(row.samples, func(s sample) time.Duration { return s.cpu }))),
			mb(median(each(row.samples, func(s sample) int64 { return s.memory }))))
	}
	b.tables = append(b.tables, t)
	b.target("1,000,000 records: rps when empty / rps", ratioOf(empty, full, func(s sample) float64 { return s.rps }), "≤", 1.3)
}

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
			ms(median(each(wakes[rows], func(w wake) time.Duration { return w.p50 }))),
			ms(median(each(wakes[rows], func(w wake) time.Duration { return w.longest }))))
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
	receiver := startRearmed()
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
	err = change(dir, `UPDATE modelriverCallbacks SET url = {:url} || '/v1/callback/' || id, host = {:host}, nextAttempt = {:next}, expires = {:expires}`, dbx.Params{
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

	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	var times []time.Duration
	for i := range rearmed {
		took, err := receiver.rearm(b.ctx, client, "http://"+s.addr, token, rearmedId(i))
		if err != nil {
			return result, err
		}
		times = append(times, took)
		// Not in step with anything: the row of the one before is being written.
		time.Sleep(30 * time.Millisecond)
	}
	return wake{p50: percentile(times, 50), longest: percentile(times, 100)}, nil
}

// A rearmedReceiver takes callbacks, one of which is expected at a time.
type rearmedReceiver struct {
	*httptest.Server
	arrived              chan time.Time
	unexpected, expected chan string
}

func startRearmed() *rearmedReceiver {
	r := &rearmedReceiver{arrived: make(chan time.Time, 1), unexpected: make(chan string, 1), expected: make(chan string, 1)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		now := time.Now()
		io.Copy(io.Discard, request.Body)
		io.WriteString(w, `{"success":true}`)
		select {
		case id := <-r.expected:
			if strings.HasSuffix(request.URL.Path, "/"+id) {
				r.arrived <- now
				return
			}
		default:
		}
		select {
		case r.unexpected <- request.URL.Path:
		default:
		}
	}))
	return r
}

// rearm sets a failed callback back to pending and returns how long it takes to arrive.
func (r *rearmedReceiver) rearm(ctx context.Context, client *http.Client, url, token, id string) (time.Duration, error) {
	request, err := http.NewRequest(http.MethodPatch, url+"/api/collections/modelriverCallbacks/records/"+id, strings.NewReader(`{"state":"pending"}`))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", token)
	r.expected <- id
	began := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	answer, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("PATCH was answered %s: %s", response.Status, answer)
	}
	select {
	case at := <-r.arrived:
		return at.Sub(began), nil
	case path := <-r.unexpected:
		return 0, fmt.Errorf("a callback that should wait was sent: %s", path)
	case <-time.After(30 * time.Second):
		return 0, fmt.Errorf("callback %s was not sent within 30 seconds", id)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// A beginning is what one start found.
type beginning struct {
	took   time.Duration
	memory int64
}

// start measures from the process's start to the first healthy answer, and the memory
// that it then holds.
func (b *bench) start() error {
	const perRound = 3
	beginnings := map[string][]beginning{}
	for round := range b.rounds {
		for range perRound {
			for _, v := range b.comparedServers() {
				if err := b.ctx.Err(); err != nil {
					return err
				}
				s, took, err := b.serve(v.kind, b.privateData)
				if err != nil {
					return err
				}
				time.Sleep(500 * time.Millisecond)
				beginnings[v.name] = append(beginnings[v.name], beginning{took, s.memory()})
				progress("round %d/%d  start  %-11s %s ms  %s MB", round+1, b.rounds, v.name, ms(took), mb(s.memory()))
				s.stop()
			}
		}
	}
	t := &table{
		title: "Start: until health is answered, and memory half a second later",
		head:  []string{"server", "start ms", "× stock", "memory MB", "× stock"},
	}
	took := func(s beginning) float64 { return float64(s.took) }
	memory := func(s beginning) float64 { return float64(s.memory) }
	for _, v := range b.comparedServers() {
		all, stock := beginnings[v.name], beginnings["stock"]
		t.add(v.name,
			ms(median(each(all, func(s beginning) time.Duration { return s.took }))), ratio(ratioOf(all, stock, took)),
			mb(median(each(all, func(s beginning) int64 { return s.memory }))), ratio(ratioOf(all, stock, memory)))
	}
	b.tables = append(b.tables, t)
	b.target("Start time / stock's", ratioOf(beginnings["PocketRiver"], beginnings["stock"], took), "≤", 1.3)
	b.target("Idle memory / stock's", ratioOf(beginnings["PocketRiver"], beginnings["stock"], memory), "≤", 1.15)
	return nil
}
