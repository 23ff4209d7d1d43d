//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pocketbase/dbx"
)

// A variant is one way to store what a webhook brings.
type variant struct {
	name, label string
	kind        serverKind
	rows        int  // of content and callbacks, per webhook
	callback    bool // one is sent for each webhook
	mute        bool // callbacks are sent to a host that never answers
	waits       bool // measured until the last callback is delivered
	reuse       bool // the server stores nothing
	alone       bool // only measured with one connection
}

func (b *bench) stockKind() serverKind { return serverKind{binary: b.stock, request: kindCreate} }

func (b *bench) oursKind() serverKind {
	return serverKind{
		binary: b.ours, request: kindWebhook,
		env: []string{"MODELRIVER_WEBHOOK_SECRET=" + secret, "MODELRIVER_API_KEY=" + apiKey, "MODELRIVER_CALLBACK_HOSTS=127.0.0.1"},
	}
}

func (b *bench) scriptKind() serverKind {
	return serverKind{
		binary: b.stock, script: true, request: kindWebhook,
		env: []string{"MODELRIVER_WEBHOOK_SECRET=" + secret, "MODELRIVER_API_KEY=" + apiKey},
	}
}

func (b *bench) variants() []variant {
	return []variant{
		{name: "A", label: "stock PocketBase, REST create (NORMAL, 1 row)", kind: b.stockKind(), rows: 1},
		{name: "A-full", label: "the same with synchronous=FULL", rows: 1, alone: true,
			kind: serverKind{binary: b.self, args: []string{"stock-full"}, request: kindCreate}},
		{name: "B1", label: "PocketRiver, no callback owed (FULL, 1 row)", kind: b.oursKind(), rows: 1},
		{name: "B", label: "PocketRiver, callback row written; ModelRiver does not answer callbacks (FULL, 2 rows)", kind: b.oursKind(), rows: 2, mute: true},
		{name: "C", label: "PocketRiver, until the last callback is delivered (FULL, 2 rows + update)", kind: b.oursKind(), rows: 2, callback: true, waits: true},
		{name: "D1", label: "pb_hooks script, no callback (NORMAL, 1 row)", kind: b.scriptKind(), rows: 1},
		{name: "D", label: "pb_hooks script, callback before the answer (NORMAL, 1 row)", kind: b.scriptKind(), rows: 1, callback: true},
		{name: "E1", label: "ceiling: Go's HTTP server that only checks the signature", reuse: true,
			kind: serverKind{binary: b.self, args: []string{"verify"}, request: kindWebhook}},
	}
}

const insertsName = "E2" // not a server: see measureInserts

// A sample is what one measurement found.
type sample struct {
	rps       float64
	p50, p99  time.Duration
	cpu       time.Duration // of the server, per request
	memory    int64         // resident, of the server
	loadShare float64       // of one core, that the load generator used
}

// An ingestCell is one figure of the tables of ingest.
type ingestCell struct {
	connections int
	name        string
}

func (b *bench) ingest() error {
	if err := b.checkSameRecord(); err != nil {
		return err
	}
	variants := b.variants()
	samples := map[ingestCell][]sample{}
	for round := range b.rounds {
		for _, connections := range b.connections {
			for _, v := range variants {
				if v.alone && connections != 1 {
					continue
				}
				s, err := b.measureIngest(v, b.privateData, connections)
				if err != nil {
					return fmt.Errorf("%s, %d connections: %w", v.name, connections, err)
				}
				b.progressSample(round, connections, v.name, s)
				key := ingestCell{connections, v.name}
				samples[key] = append(samples[key], s)
			}
			s, err := b.measureInserts(connections)
			if err != nil {
				return err
			}
			b.progressSample(round, connections, insertsName, s)
			samples[ingestCell{connections, insertsName}] = append(samples[ingestCell{connections, insertsName}], s)
		}
	}

	b.ingestTables(variants, samples)
	b.ingestTargets(samples)
	return nil
}

// measureIngest starts a server on fresh data, warms it up, measures, and counts what
// it has stored and sent.
func (b *bench) measureIngest(v variant, data string, connections int) (sample, error) {
	s, _, err := b.serve(v.kind, data)
	if err != nil {
		return sample{}, err
	}
	defer s.stop()
	return b.measureServer(v, s, connections, 1)
}

// maxRate is more requests in a second than any of the servers stores. A faster one
// ends its measurement earlier.
const maxRate = 12000

func (b *bench) measureServer(v variant, s *server, connections, first int) (result sample, err error) {
	if err := b.ctx.Err(); err != nil {
		return result, err
	}
	db, err := openData(s)
	if err != nil {
		return result, err
	}
	defer db.Close()
	rowsBefore := 0
	if !v.reuse {
		if rowsBefore, err = count(db, "aiContent", "true"); err != nil {
			return result, err
		}
	}

	receiver, callback, end, err := startCallbacks(v)
	if err != nil {
		return result, err
	}
	defer end()
	load, err := startReady("load", loadConfig{
		Addr: s.addr, Kind: v.kind.request, Conns: connections, First: first, Callback: callback,
		Count: int(maxRate * (b.duration + b.duration/5).Seconds()), Reuse: v.reuse,
	})
	if err != nil {
		return result, err
	}
	defer load.close()

	// Warm up.
	warm, err := b.phase(load, loadPhase{Duration: b.duration / 5})
	if err != nil {
		return result, err
	}
	if v.waits {
		if _, err := waitDelivered(db); err != nil {
			return result, err
		}
	}

	result, n, err := b.measurePhase(v, s, db, load)
	if err != nil || v.reuse {
		return result, err
	}
	return result, checkStored(db, v, receiver, rowsBefore, n+len(warm.Seqs))
}

// measurePhase sends for the duration of a measurement, and returns how many were answered.
func (b *bench) measurePhase(v variant, s *server, db *dbx.DB, load *helper) (result sample, n int, err error) {
	cpu := s.cpu()
	measured, err := b.phase(load, loadPhase{Duration: b.duration})
	if err != nil {
		return result, 0, err
	}
	took := measured.took()
	if v.waits {
		end, err := waitDelivered(db)
		if err != nil {
			return result, 0, err
		}
		took = time.Duration(end.UnixNano() - slices.Min(measured.Sent))
	}
	if n = len(measured.Seqs); n == 0 {
		return result, 0, errors.New("nothing was answered")
	}
	latencies := measured.latencies()
	return sample{
		rps:       float64(n) / took.Seconds(),
		p50:       percentile(latencies, 50),
		p99:       percentile(latencies, 99),
		cpu:       (s.cpu() - cpu) / time.Duration(n),
		memory:    s.memory(),
		loadShare: measured.CPU.Seconds() / measured.took().Seconds(),
	}, n, nil
}

// startCallbacks starts what takes the callbacks of a variant. It returns their URL, which
// is empty if there are none.
func startCallbacks(v variant) (receiver *helper, url string, end func(), err error) {
	switch {
	case v.callback:
		var addr string
		if receiver, err = startHelper("receiver", nil); err != nil {
			return nil, "", nil, err
		}
		if err := receiver.read(&addr); err != nil {
			receiver.close()
			return nil, "", nil, err
		}
		return receiver, "http://" + addr, receiver.close, nil
	case v.mute:
		listener, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody reads
		if err != nil {
			return nil, "", nil, err
		}
		return nil, "http://" + listener.Addr().String(), func() { listener.Close() }, nil
	}
	return nil, "", func() {}, nil
}

// startReady starts a helper that says when it is ready.
func startReady(role string, config any) (*helper, error) {
	h, err := startHelper(role, config)
	if err != nil {
		return nil, err
	}
	var ready bool
	if err := h.read(&ready); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// phase runs one phase of the load generator.
func (b *bench) phase(load *helper, phase loadPhase) (result loadResult, err error) {
	if err := load.ask(phase, &result); err != nil {
		return result, err
	}
	if result.Failure != "" {
		return result, errors.New(result.Failure)
	}
	return result, b.ctx.Err()
}

// waitDelivered returns when no callback is pending.
func waitDelivered(db *dbx.DB) (time.Time, error) {
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) {
		var pending bool
		if err := db.NewQuery("SELECT EXISTS (SELECT 1 FROM modelriverCallbacks WHERE state = 'pending')").Row(&pending); err != nil {
			return time.Time{}, err
		}
		if !pending {
			return time.Now(), nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Time{}, errors.New("callbacks are still pending after two minutes")
}

// checkStored compares what was answered 200 with what is there.
func checkStored(db *dbx.DB, v variant, receiver *helper, before, answered int) error {
	stored, err := count(db, "aiContent", "true")
	if err != nil {
		return err
	}
	if stored-before != answered {
		return fmt.Errorf("%d webhooks were answered 200, but %d records are stored", answered, stored-before)
	}
	if v.rows == 2 {
		state := "pending"
		if v.waits {
			state = "delivered"
		}
		// Callbacks that were there before have no host.
		callbacks, err := count(db, "modelriverCallbacks", "state = '"+state+"' AND host LIKE '127.0.0.1:%'")
		if err != nil {
			return err
		}
		if callbacks != answered {
			return fmt.Errorf("%d webhooks were answered 200, but %d callbacks are %s", answered, callbacks, state)
		}
	}
	if receiver != nil {
		var report receiverReport
		if err := receiver.ask("report", &report); err != nil {
			return err
		}
		if report.Distinct != answered || report.Total != answered || report.WithoutKey > 0 {
			return fmt.Errorf("%d webhooks were answered 200, but %d callbacks arrived, %d of them different, %d without the key",
				answered, report.Total, report.Distinct, report.WithoutKey)
		}
	}
	return nil
}

// measureInserts is the ceiling of the database.
func (b *bench) measureInserts(batch int) (result sample, err error) {
	dir := filepath.Join(b.dir, "inserts")
	defer os.RemoveAll(dir)
	if err := copyData(b.privateData, dir); err != nil {
		return result, err
	}
	h, err := startHelper("inserts", insertConfig{Dir: dir, Batch: batch, Duration: b.duration})
	if err != nil {
		return result, err
	}
	defer h.close()
	var inserted insertResult
	if err := h.read(&inserted); err != nil {
		return result, err
	}
	return sample{
		rps:    float64(inserted.Count) / inserted.Took.Seconds(),
		cpu:    inserted.CPU / time.Duration(inserted.Count),
		memory: h.memory(),
	}, b.ctx.Err()
}

// checkSameRecord sends one webhook to each program and compares the records, so that
// all are measured at the same work.
func (b *bench) checkSameRecord() error {
	type row struct {
		Title     string `db:"title"`
		Body      string `db:"body"`
		Category  string `db:"category"`
		Metadata  string `db:"metadata"`
		Data      string `db:"data"`
		ChannelId string `db:"channelId"`
		EventName string `db:"eventName"`
		UserId    string `db:"userId"`
		Source    string `db:"source"`
	}
	var first row
	for _, v := range b.variants() {
		if v.reuse || v.alone || v.callback {
			continue
		}
		record, err := func() (r row, err error) {
			s, _, err := b.serve(v.kind, b.privateData)
			if err != nil {
				return r, err
			}
			defer s.stop()
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				return r, err
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			if err := (&loadConn{conn, make([]byte, 16<<10)}).exchange(request(v.kind.request, s.addr, "", 1)); err != nil {
				return r, err
			}
			db, err := openData(s)
			if err != nil {
				return r, err
			}
			defer db.Close()
			return r, db.NewQuery("SELECT title, body, category, metadata, data, channelId, eventName, userId, source FROM aiContent").One(&r)
		}()
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		if first.Title == "" {
			first = record
		}
		if !sameJSON(record.Metadata, first.Metadata) || !sameJSON(record.Data, first.Data) {
			return fmt.Errorf("%s stores other JSON:\n%+v\n%+v", v.name, record, first)
		}
		record.Metadata, record.Data = first.Metadata, first.Data
		if record != first {
			return fmt.Errorf("%s stores another record:\n%+v\n%+v", v.name, record, first)
		}
	}
	return nil
}
