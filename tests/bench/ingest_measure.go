//go:build linux

package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pocketbase/dbx"
)

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
		if rowsBefore, err = countRows(db, "aiContent", "true"); err != nil {
			return result, err
		}
	}
	config := loadConfig{
		Addr: s.addr, Also: s.also, Kind: v.kind.request, Conns: connections, First: first,
		Count: int(maxRate * (b.duration + b.duration/5).Seconds()), Reuse: v.reuse,
	}
	var receiver *helper
	switch {
	case v.callback:
		if receiver, config.Callback, err = startReceiver(); err != nil {
			return result, err
		}
		defer receiver.close()
	case v.mute:
		listener, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody reads
		if err != nil {
			return result, err
		}
		defer listener.Close()
		config.Callback = "http://" + listener.Addr().String()
	}
	load, err := startReady("load", config)
	if err != nil {
		return result, err
	}
	defer load.close()
	result, answered, err := b.measureLoad(v, s, load, db)
	if err != nil || v.reuse {
		return result, err
	}
	return result, checkStored(db, v, receiver, rowsBefore, answered)
}

// startReceiver starts the process that accepts callbacks, and returns its URL.
func startReceiver() (receiver *helper, url string, err error) {
	if receiver, err = startHelper("receiver", nil); err != nil {
		return nil, "", err
	}
	var addr string
	if err := receiver.read(&addr); err != nil {
		receiver.close()
		return nil, "", err
	}
	return receiver, "http://" + addr, nil
}

// measureLoad warms a server up and measures it. It returns how many requests were
// answered in both.
func (b *bench) measureLoad(v variant, s *server, load *helper, db *dbx.DB) (result sample, answered int, err error) {
	warm, err := b.phase(load, loadPhase{Duration: b.duration / 5})
	if err != nil {
		return result, 0, err
	}
	if v.waits {
		if _, err := waitDelivered(db); err != nil {
			return result, 0, err
		}
	}

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
	n := len(measured.Seqs)
	if n == 0 {
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
	}, n + len(warm.Seqs), nil
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
