//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

const (
	askRate  = 200 // requests per second
	askConns = 32
	shortAsk = 5 * time.Second

	// plainCollection holds what a client says in a request to ModelRiver, and nothing comes of it.
	plainCollection = "questions"
)

// An asking is what one measurement of ask found.
type asking struct {
	p50, p99           time.Duration // answers to clients, at askRate
	cpu, simulatorCPU  time.Duration // per request at askRate, until its answer is stored
	toAnswer, longest  time.Duration // at askRate, from the request's creation until its answer is stored
	rps                float64       // answers to clients, as many as can be
	fullP50, fullP99   time.Duration
	behind             time.Duration // from then until the last answer is stored
	requests, answered int
}

// ask has users ask ModelRiver, whose place the simulator takes, beside the creation of plain
// records in stock PocketBase.
func (b *bench) ask() error {
	data, token, err := b.askData()
	if err != nil {
		return err
	}
	defer os.RemoveAll(data)
	plain, ours := b.stockKind(), b.oursKind()
	plain.request, ours.request = kindPlain, kindAsk
	variants := []variant{{name: "stock", kind: plain}, {name: "PocketRiver", kind: ours}}
	all := map[string][]asking{}
	for round := range b.rounds {
		for i := range variants {
			v := variants[(i+round)%len(variants)]
			a, err := b.measureAsk(v, data, token)
			if err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
			progress("round %d/%d  ask  %-11s  at %d/s p50 %s p99 %s ms  %s µs CPU, simulator %s  answer stored after p50 %s ms  full %.0f rps p99 %s ms, behind %s ms",
				round+1, b.rounds, v.name, askRate, ms(a.p50), ms(a.p99), us(a.cpu), us(a.simulatorCPU), ms(a.toAnswer), a.rps, ms(a.fullP99), ms(a.behind))
			all[v.name] = append(all[v.name], a)
		}
	}
	b.addAskTables(all["stock"], all["PocketRiver"])
	return nil
}

// askData are users, whose are the requests, and a collection for the plain records.
func (b *bench) askData() (dir, token string, err error) {
	dir = filepath.Join(b.dir, "ask")
	err = makeData(dir, false, func(app core.App) error {
		tokens, err := addUsers(app, 1)
		if err != nil {
			return err
		}
		token = tokens[0]
		requests, err := app.FindCollectionByNameOrId("aiRequests")
		if err != nil {
			return err
		}
		requests.CreateRule = types.Pointer(`@request.auth.id != ""`)
		if err := app.Save(requests); err != nil {
			return err
		}
		plain := core.NewBaseCollection(plainCollection)
		plain.CreateRule = requests.CreateRule
		plain.Fields.Add(
			&core.TextField{Name: "workflow", Required: true}, &core.JSONField{Name: "input"},
			&core.AutodateField{Name: "created", OnCreate: true}, &core.AutodateField{Name: "updated", OnCreate: true, OnUpdate: true},
		)
		return app.Save(plain)
	})
	return dir, token, err
}

func (b *bench) addAskTables(stock, ours []asking) {
	rate := &table{
		title: fmt.Sprintf("Ask: %d requests a second for %s, each answered by the simulator, whose AI takes %s", askRate, b.asked, askDelay),
		notes: []string{"The processor time is all that a request costs until its answer is stored."},
		head:  []string{"", "answer p50 ms", "answer p99 ms", "stock's p50 / this", "stock's p99 / this", "CPU/request µs", "simulator µs", "AI's answer stored after p50 ms", "longest ms", "requests answered"},
	}
	full := &table{
		title: fmt.Sprintf("Ask: as many as are answered, on %d connections", askConns),
		head:  []string{"", "rps", "× stock", "answer p50 ms", "answer p99 ms", "last AI's answer stored after ms"},
	}
	p50 := func(a asking) float64 { return float64(a.p50) }
	p99 := func(a asking) float64 { return float64(a.p99) }
	rps := func(a asking) float64 { return a.rps }
	of := func(all []asking, get func(asking) time.Duration) time.Duration { return medianOf(all, get) }
	for _, row := range []struct {
		name string
		all  []asking
	}{{"stock PocketBase, a plain record", stock}, {"PocketRiver, a request", ours}} {
		answered := "-"
		if row.all[0].requests > 0 {
			answered = fmt.Sprintf("%d of %d", row.all[0].answered, row.all[0].requests)
		}
		rate.add(row.name, ms(of(row.all, func(a asking) time.Duration { return a.p50 })), ms(of(row.all, func(a asking) time.Duration { return a.p99 })),
			ratio(ratioOf(stock, row.all, p50)), ratio(ratioOf(stock, row.all, p99)),
			us(of(row.all, func(a asking) time.Duration { return a.cpu })), us(of(row.all, func(a asking) time.Duration { return a.simulatorCPU })),
			ms(of(row.all, func(a asking) time.Duration { return a.toAnswer })), ms(of(row.all, func(a asking) time.Duration { return a.longest })), answered)
		full.add(row.name, fmt.Sprintf("%.0f", medianOf(row.all, rps)), ratio(ratioOf(row.all, stock, rps)),
			ms(of(row.all, func(a asking) time.Duration { return a.fullP50 })), ms(of(row.all, func(a asking) time.Duration { return a.fullP99 })),
			ms(of(row.all, func(a asking) time.Duration { return a.behind })))
	}
	b.tables = append(b.tables, rate, full)
	b.target(fmt.Sprintf("%d requests/s: p50 of stock's plain creates / of asking", askRate), ratioOf(stock, ours, p50), "≥", 0.6)
	b.target(fmt.Sprintf("%d connections: rps of asking / of stock's plain creates", askConns), ratioOf(ours, stock, rps), "≥", 0.6)
}
