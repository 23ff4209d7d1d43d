//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pocketbase/dbx"
)

// askDelay is how long the simulator's AI takes: so short that answers come while the next
// requests do, also in short measurements.
const askDelay = 100 * time.Millisecond

// measureAsk sends questions at the fixed rate, and as fast as is answered.
func (b *bench) measureAsk(v variant, data, token string) (result asking, err error) {
	if err := b.ctx.Err(); err != nil {
		return result, err
	}
	api, err := freeAddr()
	if err != nil {
		return result, err
	}
	v.kind.env = append(v.kind.env, "MODELRIVER_API_URL=http://"+api)
	s, _, err := b.serve(v.kind, data)
	if err != nil {
		return result, err
	}
	defer s.stop()
	db, err := openData(s)
	if err != nil {
		return result, err
	}
	defer db.Close()
	simulator, err := b.startSimulator(s, api)
	if err != nil {
		return result, err
	}
	defer simulator.end(syscall.SIGKILL)

	load, err := startReady("load", loadConfig{
		Addr: s.addr, Kind: v.kind.request, Token: token, Conns: askConns, First: 1,
		Count: int(maxRate*(b.duration+b.duration/5).Seconds() + askRate*b.asked.Seconds()),
	})
	if err != nil {
		return result, err
	}
	defer load.close()
	warm, err := b.askPhase(load, db, loadPhase{Duration: b.duration / 5})
	if err != nil {
		return result, err
	}

	first := len(warm.Seqs)
	n, err := b.measureCalm(&result, v, s, simulator, load, db, first)
	if err != nil {
		return result, err
	}
	full, err := b.askPhase(load, db, loadPhase{Duration: b.duration})
	if err != nil {
		return result, err
	}
	result.rps = float64(len(full.Seqs)) / full.took().Seconds()
	result.fullP50, result.fullP99 = percentile(full.latencies(), 50), percentile(full.latencies(), 99)
	result.behind = full.behind
	return result, checkAsked(&result, v, db, api, first+n+len(full.Seqs))
}

// measureCalm measures at the fixed rate, behind the first requests, and returns how many
// were sent.
func (b *bench) measureCalm(result *asking, v variant, s *server, simulator *process, load *helper, db *dbx.DB, first int) (n int, err error) {
	cpu, simulatorCPU := s.cpu(), simulator.cpu()
	calm, err := b.askPhase(load, db, loadPhase{Duration: b.asked, Rate: askRate})
	if err != nil {
		return 0, err
	}
	n = len(calm.Seqs)
	if want := int(0.99 * askRate * b.asked.Seconds()); n < want {
		return n, fmt.Errorf("%d requests were sent in %s, want %d: the load generator has too little of the machine", n, b.asked, want)
	}
	result.p50, result.p99 = percentile(calm.latencies(), 50), percentile(calm.latencies(), 99)
	result.cpu = (s.cpu() - cpu) / time.Duration(n)
	if v.kind.request == kindAsk {
		result.simulatorCPU = (simulator.cpu() - simulatorCPU) / time.Duration(n)
		result.toAnswer, result.longest, err = answerTimes(db, first)
	}
	return n, err
}

// startSimulator starts the simulator in ModelRiver's place for a server.
func (b *bench) startSimulator(s *server, api string) (*process, error) {
	dir := filepath.Join(s.dir, "simulator")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	output, err := os.Create(filepath.Join(dir, "output.txt"))
	if err != nil {
		return nil, err
	}
	defer output.Close()
	// In life it is on another machine: here it gets what the server leaves of the processors.
	cmd := exec.Command("nice", "-n", "19", b.ours, "modelriver", "simulate", "--dev=false", // see serveAt
		"--dir="+dir, "--listen="+api, "--target=http://"+s.addr+"/webhooks/modelriver", "--event=", "--delay="+askDelay.String())
	cmd.Env = b.oursKind().env
	cmd.Stdout, cmd.Stderr = output, output
	p, err := start(cmd)
	if err != nil {
		return nil, err
	}
	for range 1000 {
		if _, err := simulated(api); err == nil {
			return p, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.end(syscall.SIGKILL)
	text, _ := os.ReadFile(output.Name())
	return nil, fmt.Errorf("the simulator does not answer:\n%s", text)
}

// simulated returns what the simulator counts.
func simulated(api string) (counts map[string]int, err error) {
	response, err := patience.Get("http://" + api + "/status")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	return counts, json.NewDecoder(response.Body).Decode(&counts)
}

// An askResult is what a phase has sent, and how long after its end all was answered.
type askResult struct {
	loadResult
	behind time.Duration
}

// askPhase runs a phase, and waits until each request has ended.
func (b *bench) askPhase(load *helper, db *dbx.DB, phase loadPhase) (result askResult, err error) {
	if result.loadResult, err = b.phase(load, phase); err != nil {
		return result, err
	}
	if len(result.Seqs) == 0 {
		return result, errors.New("nothing was answered")
	}
	began := time.Now()
	for deadline := began.Add(4 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		open, err := countRows(db, "aiRequests", "state IN ('queued', 'sent')")
		if err != nil {
			return result, err
		}
		if open == 0 {
			result.behind = time.Since(began)
			return result, b.ctx.Err()
		}
	}
	return result, fmt.Errorf("requests still wait for their answers after four minutes; there are: %s", ends(db))
}

// answerTimes returns how long answers took, behind the first requests.
func answerTimes(db *dbx.DB, first int) (p50, longest time.Duration, err error) {
	var milliseconds []float64
	err = db.NewQuery("SELECT (julianday(updated) - julianday(created)) * 86400000 FROM aiRequests ORDER BY rowid LIMIT -1 OFFSET {:first}").
		Bind(dbx.Params{"first": first}).Column(&milliseconds)
	var times []time.Duration
	for _, value := range milliseconds {
		times = append(times, time.Duration(value*float64(time.Millisecond)))
	}
	return percentile(times, 50), percentile(times, 100), err
}

// checkAsked compares what clients were answered with what is there: each request was sent
// once, and has its answer.
func checkAsked(result *asking, v variant, db *dbx.DB, api string, created int) (err error) {
	if v.kind.request != kindAsk {
		stored, err := countRows(db, plainCollection, "true")
		if err == nil && stored != created {
			err = fmt.Errorf("%d creates were answered 200, but %d records are stored", created, stored)
		}
		return err
	}
	result.requests = created
	if result.answered, err = countRows(db, "aiRequests JOIN aiContent ON aiContent.id = aiRequests.record", "state = 'answered' AND aiContent.userId = aiRequests.userId AND aiRequests.userId != ''"); err != nil {
		return err
	}
	content, err := countRows(db, "aiContent", "true")
	if err != nil {
		return err
	}
	counts, err := simulated(api)
	if err != nil {
		return err
	}
	if result.answered != created || content != created || counts["generations"] != created || counts["posts"] != created {
		return fmt.Errorf("%d requests were created, but %d are answered, %d answers stored, and the simulator got %d and took %d; there are: %s",
			created, result.answered, content, counts["posts"], counts["generations"], ends(db))
	}
	return nil
}

// ends tells how many requests ended how.
func ends(db *dbx.DB) string {
	var lines []string
	err := db.NewQuery("SELECT COUNT(*) || ' ' || state || ' ' || error FROM aiRequests GROUP BY state, error ORDER BY 1").Column(&lines)
	if err != nil {
		return err.Error()
	}
	return strings.Join(lines, ", ")
}
