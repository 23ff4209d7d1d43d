//go:build linux

package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

const (
	stormPages = 5000
	stormQuiet = 10 * time.Second
	stormGone  = 2 * time.Second
)

// A stormed is what one restart of the server found, with pages that come back together.
type stormed struct {
	quiet50, quiet99 time.Duration // answers to webhooks, before
	storm50, storm99 time.Duration // from the server's first answer until all pages are right
	right            time.Duration // from that answer until each page shows what the server lists
	lists            float64       // per page, for that
	streams          float64
	pagesShare       float64 // of one core
}

// storm kills the server of 5,000 pages, and starts it again.
func (b *bench) storm() error {
	data, token, err := b.liveData()
	if err != nil {
		return err
	}
	defer os.RemoveAll(data)
	var all []stormed
	for round := range b.rounds {
		s, err := b.measureStorm(data, token)
		if err != nil {
			return err
		}
		progress("round %d/%d  storm  answer p50 %s p99 %s ms, quiet p50 %s p99 %s ms  all right after %s ms  %.2f lists, %.2f streams a page  pages %.0f %%",
			round+1, b.rounds, ms(s.storm50), ms(s.storm99), ms(s.quiet50), ms(s.quiet99), ms(s.right), s.lists, s.streams, 100*s.pagesShare)
		all = append(all, s)
	}
	times := medianOf(all, func(s stormed) float64 { return float64(s.storm99) / float64(s.quiet99) })
	right := medianOf(all, func(s stormed) time.Duration { return s.right })
	t := &table{
		title: fmt.Sprintf("Storm: the server is killed, and started again after %s, with %d pages and %d webhooks a second", stormGone, stormPages, webhookRate),
		notes: []string{"From its first answer until all pages show what it lists, with a change that was made after the restart."},
		head:  []string{"", "answer p50 ms", "answer p99 ms", "p99 × before", "all pages right after ms", "lists/page", "streams opened/page", "pages: % of a core"},
	}
	t.add("before", ms(medianOf(all, func(s stormed) time.Duration { return s.quiet50 })), ms(medianOf(all, func(s stormed) time.Duration { return s.quiet99 })), "1.00", "-", "-", "-", "-")
	t.add("after the restart", ms(medianOf(all, func(s stormed) time.Duration { return s.storm50 })), ms(medianOf(all, func(s stormed) time.Duration { return s.storm99 })),
		ratio(times), ms(right), ratio(medianOf(all, func(s stormed) float64 { return s.lists })), ratio(medianOf(all, func(s stormed) float64 { return s.streams })),
		fmt.Sprintf("%.0f", 100*medianOf(all, func(s stormed) float64 { return s.pagesShare })))
	b.tables = append(b.tables, t)
	b.target("5,000 pages after a restart: answer p99 / before", times, "≤", 3)
	b.target("5,000 pages after a restart: all right, s", right.Seconds(), "≤", 15)
	return nil
}

func (b *bench) measureStorm(data, token string) (result stormed, err error) {
	if err := b.ctx.Err(); err != nil {
		return result, err
	}
	v := variant{kind: b.oursKind(), rows: 1}
	s, _, err := b.serve(v.kind, data)
	if err != nil {
		return result, err
	}
	defer func() { s.stop() }() // the one that is started again
	const warm = 200
	if err := b.warmUp(v, s, warm); err != nil {
		return result, err
	}
	p, err := b.openStorm(s)
	if err != nil {
		return result, err
	}
	defer p.close()
	opened, err := p.ask(pagesCommand{})
	if err != nil {
		return result, err
	}

	load, err := startReady("load", loadConfig{Addr: s.addr, Kind: v.kind.request, Conns: fanoutConns, First: warm, Count: 300 * webhookRate, Retry: true})
	if err != nil {
		return result, err
	}
	defer load.close()
	sending := b.sendOn(load)
	defer func() { sending.end() }()
	quiet := time.Now()
	time.Sleep(stormQuiet)
	killed := time.Now()
	s.end(syscall.SIGKILL)
	time.Sleep(stormGone)
	again, _, err := b.serveAt(v.kind, s.dir, s.addr)
	if err != nil {
		return result, err
	}
	answered := time.Now()
	s = again
	report, err := b.stormChange(s, p, token)
	if err != nil {
		return result, err
	}
	result = stormed{
		right:      time.Duration(report.Since - answered.UnixNano()),
		lists:      float64(report.Lists-opened.Lists) / stormPages,
		streams:    float64(report.Streams-opened.Streams) / stormPages,
		pagesShare: (report.CPU - opened.CPU).Seconds() / time.Since(killed).Seconds(),
	}
	sent, err := sending.end()
	if err != nil {
		return result, err
	}
	calm, wild := sent.between(quiet, killed), sent.between(answered, time.Unix(0, report.Since))
	result.quiet50, result.quiet99 = percentile(calm, 50), percentile(calm, 99)
	result.storm50, result.storm99 = percentile(wild, 50), percentile(wild, 99)
	return result, checkStormStored(s, v, warm+len(sent.Seqs))
}

func checkStormStored(s *server, v variant, answered int) error {
	db, err := openData(s)
	if err != nil {
		return err
	}
	defer db.Close()
	return checkStored(db, v, nil, ownRows+noticeRows, answered)
}

// openStorm opens pages whose filters all differ, though they show the same rows.
func (b *bench) openStorm(s *server) (*pages, error) {
	wanted, err := s.listed(noticeFilter, noticeLimit)
	if err != nil {
		return nil, err
	}
	var filters []string
	for i := range stormPages {
		filters = append(filters, fmt.Sprintf(`%s && title != "%d"`, noticeFilter, i))
	}
	p, err := b.openPages(s, stormPages, noticeLimit, filters)
	if err != nil {
		return nil, err
	}
	// In life they are on other machines: here they get what the server leaves of the processors.
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, p.cmd.Process.Pid, 19); err != nil {
		p.close()
		return nil, err
	}
	progress("storm: %d pages are open", stormPages)
	if _, err := p.untilRight(time.Minute, wanted); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// stormChange changes a row that all pages show, and waits until they show that.
func (b *bench) stormChange(s *server, p *pages, token string) (report pagesReport, err error) {
	if err := s.patch(token, "aiContent", noticeId(0), `{"title":"A change after the restart"}`); err != nil {
		return report, err
	}
	wanted, err := s.listed(noticeFilter, noticeLimit)
	if err != nil {
		return report, err
	}
	return p.untilRight(3*time.Minute, wanted)
}

// A sending goes on until it is ended.
type sending struct {
	stop   chan struct{}
	done   chan struct{}
	result loadResult
	err    error
}

// sendOn sends webhooks at the fixed rate, phase by phase.
func (b *bench) sendOn(load *helper) *sending {
	s := &sending{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for s.err == nil {
			select {
			case <-s.stop:
				return
			default:
			}
			var part loadResult
			part, s.err = b.phase(load, loadPhase{Duration: time.Second, Rate: webhookRate})
			s.result.Seqs = append(s.result.Seqs, part.Seqs...)
			s.result.Sent = append(s.result.Sent, part.Sent...)
			s.result.Done = append(s.result.Done, part.Done...)
		}
	}()
	return s
}

// end returns what was sent. It may be called again.
func (s *sending) end() (loadResult, error) {
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	<-s.done
	return s.result, s.err
}

// between returns the latencies of those that were due within a time.
func (r *loadResult) between(from, to time.Time) (latencies []time.Duration) {
	for i, sent := range r.Sent {
		if sent >= from.UnixNano() && sent <= to.UnixNano() {
			latencies = append(latencies, time.Duration(r.Done[i]-sent))
		}
	}
	return latencies
}
