//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

const recoveryRate = 200 // webhooks a second while the first whole copy is made

// A firstCopy is what it took until the replica had all for the first time.
type firstCopy struct {
	start     time.Duration // until the server answers, which reads all of the database before
	took      time.Duration // from then on
	answered  int
	latencies []time.Duration
}

// recovery measures how long a large database takes to be in its replica, what webhooks wait for
// meanwhile, and how long it takes to be there again when the machine is gone.
func (b *bench) recovery() error {
	progress("recovery: inserting %d records", million)
	data := filepath.Join(b.dir, "million")
	defer os.RemoveAll(data)
	var token string
	err := makeData(data, false, func(app core.App) (err error) {
		if token, err = superuserToken(app); err != nil {
			return err
		}
		return addContent(app, million)
	})
	if err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(data, "data.db"))
	if err != nil {
		return err
	}
	url := b.replicaURL
	if url == "" {
		url = "file://" + filepath.Join(b.dir, "replica")
	}
	environment := []string{"REPLICA_URL=" + url}

	shipped, err := b.measureFirstCopy(data, token, environment, 0)
	if err != nil {
		return err
	}
	off, err := b.measureFirstCopy(data, token, nil, shipped.took)
	if err != nil {
		return err
	}
	t := &table{
		title: fmt.Sprintf("Recovery: the first copy of %s MB, with %d webhooks a second", mb(info.Size()), recoveryRate),
		head:  []string{"replica", "first answer after s", "it has all after s more", "answer p50 ms", "p99 ms", "longest ms"},
	}
	for _, row := range []struct {
		name string
		copy firstCopy
	}{{"off, for as long", off}, {"async", shipped}} {
		t.add(row.name, seconds(row.copy.start), seconds(row.copy.took), ms(percentile(row.copy.latencies, 50)), ms(percentile(row.copy.latencies, 99)), ms(slices.Max(row.copy.latencies)))
	}
	b.tables = append(b.tables, t)

	return b.measureRestore(environment, million+shipped.answered)
}

// measureRestore restores what was shipped: all records must be there.
func (b *bench) measureRestore(environment []string, records int) error {
	t := &table{title: "Recovery: the machine is gone", head: []string{"", "s"}}
	dir := filepath.Join(b.dir, "restored")
	defer os.RemoveAll(dir)
	began := time.Now()
	if err := b.restore(environment, "--into", dir); err != nil {
		return err
	}
	t.add("restore --into", seconds(time.Since(began)))
	if err := checkRestored(dir, records); err != nil {
		return err
	}
	began = time.Now()
	if err := b.restore(environment, "--verify"); err != nil {
		return err
	}
	t.add("restore --verify", seconds(time.Since(began)))
	b.tables = append(b.tables, t)
	return nil
}

// measureFirstCopy sends webhooks from the server's start on until the replica has all, or, without
// one, for a time.
func (b *bench) measureFirstCopy(data, token string, environment []string, without time.Duration) (result firstCopy, err error) {
	v := variant{kind: b.oursKind()}
	v.kind.env = append(v.kind.env, environment...)
	s, start, err := b.serve(v.kind, data)
	if err != nil {
		return result, err
	}
	defer s.stop()
	result.start = start
	began := time.Now()
	load, err := startReady("load", loadConfig{Addr: s.addr, Kind: v.kind.request, Conns: fanoutConns, First: 1, Count: recoveryRate * 300})
	if err != nil {
		return result, err
	}
	defer load.close()
	for {
		part, err := b.phase(load, loadPhase{Duration: time.Second, Rate: recoveryRate})
		if err != nil {
			return result, err
		}
		if len(part.Seqs) == 0 {
			return result, fmt.Errorf("the replica has not all after %s", result.took)
		}
		result.answered += len(part.Seqs)
		result.latencies = append(result.latencies, part.latencies()...)
		result.took = time.Since(began)
		hasAll := result.took >= without
		if environment != nil {
			if hasAll, err = s.replicaHasAll(token); err != nil {
				return result, err
			}
		}
		if hasAll {
			s.process.end(syscall.SIGTERM) // which ships the last second
			return result, nil
		}
	}
}

// replicaHasAll reports whether the replica is up to date.
func (s *server) replicaHasAll(token string) (bool, error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+s.addr+"/api/modelriver/stats", nil)
	if err != nil {
		return false, err
	}
	request.Header.Set("Authorization", token)
	response, err := patience.Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	var stats struct {
		Replica *struct{ UpToDate bool }
	}
	if err := json.NewDecoder(response.Body).Decode(&stats); err != nil {
		return false, err
	}
	if stats.Replica == nil {
		return false, fmt.Errorf("the server has no replica, or the answer is %s", response.Status)
	}
	return stats.Replica.UpToDate, nil
}

// restore runs pocketriver restore.
func (b *bench) restore(environment []string, args ...string) error {
	dir, err := os.MkdirTemp(b.dir, "empty")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(b.ctx, b.ours, append([]string{"restore", "--dir", dir}, args...)...)
	cmd.Env = append(cleanEnvironment(), environment...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("restore: %w\n%s", err, output)
	}
	return nil
}

// checkRestored returns an error unless the restored database has so many records.
func checkRestored(dir string, want int) error {
	db, err := dbx.Open("sqlite", filepath.Join(dir, "data.db")+fullPragmas)
	if err != nil {
		return err
	}
	defer db.Close()
	got, err := countRows(db, "aiContent", "true")
	if err == nil && got != want {
		err = fmt.Errorf("%d of %d records were restored", got, want)
	}
	return err
}
