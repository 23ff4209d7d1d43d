//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"
)

// An ownCell is a server, and how many pages have a live query of a row of their own.
type ownCell struct {
	server string
	count  int
}

// A watching is what those pages cost, while webhooks come for others.
type watching struct {
	none       time.Duration // of the server's processor time, per webhook without pages
	perWebhook time.Duration // with them, without what they cost when none come
	idle       time.Duration // and that, per second
	ack99      time.Duration
	lists      int // after the first of each
	streams    int // that were opened again
	minutes    float64
	pagesShare float64 // of one core
}

// liveOwn has pages that each show a row of their own. In stock PocketBase, live queries hear all
// events and list again: 1,000 of them would ask more than it answers.
func (b *bench) liveOwn(data, token string) error {
	servers := b.comparedServers()
	stock, ours := servers[0], servers[1]
	cells := map[ownCell][]watching{}
	order := []ownCell{{stock.name, 100}, {ours.name, 100}, {ours.name, 1000}}
	for round := range min(b.rounds, slowRounds) {
		for _, cell := range order {
			v, duration := ours, b.watched
			if cell.server == stock.name {
				v = stock
			}
			if cell.count == 100 {
				duration = min(duration, shortWatch)
			}
			w, err := b.watchOwn(v, cell.count, duration, data, token)
			if err != nil {
				return fmt.Errorf("%s, %d pages: %w", v.name, cell.count, err)
			}
			progress("round %d/%d  live  %4d pages of their own  %-11s %d lists in %.1f min  none %s  with %s µs CPU/webhook  idle %s ms CPU/s  %d streams again  pages %.0f %%",
				round+1, min(b.rounds, slowRounds), cell.count, v.name, w.lists, w.minutes, us(w.none), us(w.perWebhook), ms(w.idle), w.streams, 100*w.pagesShare)
			cells[cell] = append(cells[cell], w)
		}
	}
	b.addOwnTable(order, cells)
	return nil
}

const (
	slowRounds = 2 // of what takes long, at most
	shortWatch = 6 * time.Second
)

// watchOwn measures a server without pages, with pages, and with pages and webhooks.
func (b *bench) watchOwn(v variant, count int, duration time.Duration, data, token string) (w watching, err error) {
	if err := b.ctx.Err(); err != nil {
		return w, err
	}
	s, _, err := b.serve(v.kind, data)
	if err != nil {
		return w, err
	}
	defer s.stop()
	const warm = 200
	if err := b.warmUp(v, s, warm); err != nil {
		return w, err
	}
	short := min(duration, 30*time.Second)
	load, err := startReady("load", loadConfig{Addr: s.addr, Kind: v.kind.request, Conns: fanoutConns, First: warm, Count: 1000 + int(webhookRate*(short+duration).Seconds())})
	if err != nil {
		return w, err
	}
	defer load.close()

	cpu := s.cpu()
	none, err := b.phase(load, loadPhase{Duration: short, Rate: webhookRate})
	if err != nil {
		return w, err
	}
	w.none = (s.cpu() - cpu) / time.Duration(len(none.Seqs))
	var filters, wanted []string
	for i := range count {
		filters = append(filters, ownFilter(i))
		wanted = append(wanted, ownId(i)+liveAt)
	}
	p, err := b.openPages(s, count, noticeLimit, filters)
	if err != nil {
		return w, err
	}
	defer p.close()
	if _, err := p.untilRight(10*time.Second, wanted...); err != nil {
		return w, err
	}
	if err := b.watchPages(&w, s, p, load, short, duration); err != nil {
		return w, err
	}
	if _, err := p.untilRight(10*time.Second, wanted...); err != nil {
		return w, err
	}
	return w, checkChange(s, p, token, wanted)
}

// watchPages measures the pages for a short time without webhooks, then for the duration
// with them.
func (b *bench) watchPages(w *watching, s *server, p *pages, load *helper, short, duration time.Duration) error {
	before, err := p.ask(pagesCommand{})
	if err != nil {
		return err
	}
	began, cpu := time.Now(), s.cpu()
	select {
	case <-time.After(short):
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
	idle := (s.cpu() - cpu).Seconds() / time.Since(began).Seconds()
	w.idle = time.Duration(idle * float64(time.Second))

	phaseBegan, cpu := time.Now(), s.cpu()
	sent, err := b.phase(load, loadPhase{Duration: duration, Rate: webhookRate})
	if err != nil {
		return err
	}
	if want := int(0.99 * webhookRate * duration.Seconds()); len(sent.Seqs) < want {
		return fmt.Errorf("%d webhooks were answered, not %d", len(sent.Seqs), want)
	}
	used := (s.cpu() - cpu).Seconds() - idle*time.Since(phaseBegan).Seconds()
	w.perWebhook = time.Duration(used / float64(len(sent.Seqs)) * float64(time.Second))
	after, err := p.ask(pagesCommand{})
	if err != nil {
		return err
	}
	took := time.Since(began)
	w.lists, w.streams, w.minutes = after.Lists-before.Lists, after.Streams-before.Streams, took.Minutes()
	w.pagesShare = (after.CPU - before.CPU).Seconds() / took.Seconds()
	w.ack99 = percentile(sent.latencies(), 99)
	return nil
}

// checkChange changes the first page's row, which must show that.
func checkChange(s *server, p *pages, token string, wanted []string) (err error) {
	if err := s.patch(token, "aiContent", ownId(0), `{"title":"A change"}`); err != nil {
		return err
	}
	before := wanted[0]
	if wanted[0], err = s.listed(ownFilter(0), noticeLimit); err != nil {
		return err
	}
	if wanted[0] == before {
		return errors.New("the row is as it was before its change")
	}
	_, err = p.untilRight(10*time.Second, wanted...)
	return err
}

func (b *bench) addOwnTable(order []ownCell, cells map[ownCell][]watching) {
	t := &table{
		title: fmt.Sprintf("Live queries of own rows: %d webhooks a second, none of them for any of these pages", webhookRate),
		notes: []string{
			"\"lists\" are requests for rows after the first. Processor time without webhooks, which is that of the events that keep streams",
			"alive and of what pages ask by themselves, is apart, and taken off that per webhook.",
		},
		head: []string{"pages", "server", "lists/page/minute", "answer p99 ms", "CPU/webhook without pages µs", "with them µs", "× without", "CPU without webhooks, ms/s", "streams opened again", "pages: % of a core"},
	}
	duration := func(get func(w watching) time.Duration) func(ws []watching) time.Duration {
		return func(ws []watching) time.Duration { return medianOf(ws, get) }
	}
	times := func(w watching) float64 { return float64(w.perWebhook) / float64(w.none) }
	for _, cell := range order {
		all := cells[cell]
		lists, streams, minutes := 0, 0, 0.0
		for _, w := range all {
			lists += w.lists
			streams += w.streams
			minutes += w.minutes * float64(cell.count)
		}
		t.add(fmt.Sprint(cell.count), cell.server, fmt.Sprintf("%.3g", float64(lists)/minutes),
			ms(duration(func(w watching) time.Duration { return w.ack99 })(all)),
			us(duration(func(w watching) time.Duration { return w.none })(all)),
			us(duration(func(w watching) time.Duration { return w.perWebhook })(all)),
			ratio(medianOf(all, times)),
			ms(duration(func(w watching) time.Duration { return w.idle })(all)),
			fmt.Sprint(streams),
			fmt.Sprintf("%.0f", 100*medianOf(all, func(w watching) float64 { return w.pagesShare })))
		if cell.count == 1000 {
			b.targetCount(fmt.Sprintf("1,000 live queries of own rows: lists in %.0f minutes of all together", minutes), lists, int(0.01*minutes))
			b.target("1,000 live queries of own rows: CPU per webhook / without", medianOf(all, times), "≤", 1.3)
		}
	}
	b.tables = append(b.tables, t)
}
