//go:build linux

package main

import (
	"fmt"
	"time"
)

const burst = 500 // webhooks

// A changing is what one measurement found of pages whose rows change.
type changing struct {
	gone     time.Duration // from the PATCH that makes a row private until no page shows it
	requests int           // of one page at most, for a burst
	shown    time.Duration // from the burst's last answer until all pages show what the server lists
}

// liveChanges makes a row private that 1,000 guests look at, and sends a burst into the
// list of 100.
func (b *bench) liveChanges(data, token string) error {
	var all []changing
	for round := range b.rounds {
		c, err := b.measureChanges(data, token)
		if err != nil {
			return err
		}
		progress("round %d/%d  live  private after %s ms  burst: %d requests, right after %s ms", round+1, b.rounds, ms(c.gone), c.requests, ms(c.shown))
		all = append(all, c)
	}
	gone := medianOf(all, func(c changing) time.Duration { return c.gone })
	requests := 0
	for _, c := range all {
		requests = max(requests, c.requests)
	}
	t := &table{
		title: "Live queries of filtered lists: until all pages show what the server lists",
		head:  []string{"what", "pages", "ms", "requests of a page, at most"},
	}
	t.add("a row made private", "1000", ms(gone), "-")
	t.add(fmt.Sprintf("a burst of %d webhooks, from the last answer", burst), "100", ms(medianOf(all, func(c changing) time.Duration { return c.shown })), fmt.Sprint(requests))
	b.tables = append(b.tables, t)
	b.target("A row made private: gone from 1,000 guests' lists, ms", float64(gone)/1e6, "≤", 1000)
	b.targetCount(fmt.Sprintf("A burst of %d into a filtered list: requests of a page", burst), requests, 3)
	return nil
}

func (b *bench) measureChanges(data, token string) (c changing, err error) {
	if err := b.ctx.Err(); err != nil {
		return c, err
	}
	v := variant{kind: b.oursKind()}
	s, _, err := b.serve(v.kind, data)
	if err != nil {
		return c, err
	}
	defer s.stop()
	const warm = 200
	if err := b.warmUp(v, s, warm); err != nil {
		return c, err
	}
	if c.gone, err = b.measurePrivate(s, token); err != nil {
		return c, fmt.Errorf("a row made private: %w", err)
	}
	return c, b.measureBurst(&c, v, s, warm)
}

func (b *bench) measurePrivate(s *server, token string) (time.Duration, error) {
	before, err := s.listed(noticeFilter, noticeLimit)
	if err != nil {
		return 0, err
	}
	p, err := b.openPages(s, 1000, noticeLimit, []string{noticeFilter})
	if err != nil {
		return 0, err
	}
	defer p.close()
	if _, err := p.untilRight(10*time.Second, before); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := s.patch(token, "aiContent", noticeId(noticeRows/2), `{"userId":"somebody"}`); err != nil {
		return 0, err
	}
	after, err := s.listed(noticeFilter, noticeLimit)
	if err != nil {
		return 0, err
	}
	if len(after) >= len(before) {
		return 0, fmt.Errorf("the server lists %s", after)
	}
	report, err := p.untilRight(30*time.Second, after)
	return time.Duration(report.Since - began.UnixNano()), err
}

func (b *bench) measureBurst(c *changing, v variant, s *server, first int) error {
	load, err := startReady("load", loadConfig{Addr: s.addr, Kind: v.kind.request, Conns: 32, First: first, Count: burst})
	if err != nil {
		return err
	}
	defer load.close()
	p, err := b.openPages(s, 100, noticeLimit, []string{sampleFilter})
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := p.ask(pagesCommand{Restart: true}); err != nil {
		return err
	}
	sent, err := b.phase(load, loadPhase{Duration: time.Minute})
	if err != nil {
		return err
	}
	if len(sent.Seqs) != burst {
		return fmt.Errorf("%d of %d webhooks were answered", len(sent.Seqs), burst)
	}
	answered := time.Now()
	wanted, err := s.listed(sampleFilter, noticeLimit)
	if err != nil {
		return err
	}
	report, err := p.untilRight(30*time.Second, wanted)
	c.requests, c.shown = report.MostRequests, max(time.Millisecond, time.Duration(report.Since-answered.UnixNano()))
	return err
}
