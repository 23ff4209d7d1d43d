//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

const (
	ownRows     = 1000
	noticeRows  = 10
	noticeLimit = 50
	ownFrom     = 10_000_000 // sequence number, above all that are sent

	// The rows' times: all the same, so that they are listed by their ids.
	liveAt = "2026-01-01 00:00:00.000Z"

	sampleFilter = `category = "` + sampleCategory + `"` // all that is sent
)

// noticeFilter asks for what an index finds, as pages of a channel do.
var noticeFilter = ownFilter(ownRows)

func noticeId(i int) string  { return fmt.Sprintf("notice%09d", i) }
func ownId(i int) string     { return fmt.Sprintf("own%012d", i) }
func ownFilter(i int) string { return `channelId = "` + channel(ownFrom+i) + `"` }

// liveData are the rows that live queries show: one for each channel of a viewer's own,
// and some notices of a channel that is everybody's. Guests see them by the rule that ships.
func (b *bench) liveData() (dir, token string, err error) {
	dir = filepath.Join(b.dir, "live")
	err = makeData(dir, false, func(app core.App) (err error) {
		if token, err = superuserToken(app); err != nil {
			return err
		}
		return app.RunInTransaction(func(tx core.App) error {
			insert := insertContent(tx.NonconcurrentDB()).Prepare()
			defer insert.Close()
			for i := range ownRows + noticeRows {
				row := contentRow(ownId(i), channel(ownFrom+min(i, ownRows)), liveAt, "A short text.", `{}`)
				row["category"] = "own"
				if i >= ownRows {
					row["id"] = noticeId(i - ownRows)
				}
				if _, err := insert.Bind(row).Execute(); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return dir, token, err
}

// live measures live queries as pages have them, with the module that browsers load.
func (b *bench) live() error {
	data, token, err := b.liveData()
	if err != nil {
		return err
	}
	defer os.RemoveAll(data)
	if err := b.liveOwn(data, token); err != nil {
		return fmt.Errorf("own rows: %w", err)
	}
	if err := b.liveFanout(); err != nil {
		return fmt.Errorf("a filtered list: %w", err)
	}
	if err := b.liveChanges(data, token); err != nil {
		return fmt.Errorf("private rows and bursts: %w", err)
	}
	return nil
}

// liveFanout compares the time to the last of 1,000 subscribers with a filter that all
// records match, and without one.
func (b *bench) liveFanout() error {
	v := variant{name: "PocketRiver", kind: b.oursKind(), rows: 1}
	audiences := []audience{{count: 1000}, {count: 1000, filter: sampleFilter}}
	phase := loadPhase{Duration: max(b.duration, 2*time.Second), Rate: webhookRate}
	showings := map[audience][]showing{}
	for round := range b.rounds {
		for i := range audiences {
			a := audiences[(i+round)%len(audiences)]
			s, err := b.show(v, a, fanoutConns, phase)
			if err != nil {
				return err
			}
			if sum := s.faults; sum.lost+sum.repeated+sum.disorder+sum.cut > 0 {
				return fmt.Errorf("filter %q: %+v", a.filter, sum)
			}
			progress("round %d/%d  live  1000 guests  filter %-22q last p50 %s p99 %s ms", round+1, b.rounds, a.filter, ms(s.last50), ms(s.last99))
			showings[a] = append(showings[a], s)
		}
	}
	t := &table{
		title: fmt.Sprintf("A filtered list: 1,000 guests, %d webhooks a second, all of them in it", webhookRate),
		head:  []string{"filter", "answer p99 ms", "last p50 ms", "last p99 ms", "last p50 × unfiltered", "CPU/event µs"},
	}
	last50 := func(s showing) float64 { return float64(s.last50) }
	all := showings[audiences[0]]
	for _, a := range audiences {
		name := a.filter
		if name == "" {
			name = "none"
		}
		t.add(name,
			ms(medianOf(showings[a], func(s showing) time.Duration { return s.ack99 })),
			ms(medianOf(showings[a], func(s showing) time.Duration { return s.last50 })),
			ms(medianOf(showings[a], func(s showing) time.Duration { return s.last99 })),
			ratio(ratioOf(showings[a], all, last50)),
			us(medianOf(showings[a], func(s showing) time.Duration { return s.perEvent })))
	}
	b.tables = append(b.tables, t)
	b.target("1,000 guests of a filtered list: to the last, p50 / unfiltered", ratioOf(showings[audiences[1]], all, last50), "≤", 1.2)
	return nil
}
