package hooks

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

var (
	differentialFor  = flag.Duration("differential", 0, "how long to compare the fan-out with PocketBase's, beyond a few runs")
	differentialSeed = flag.Uint64("differential.seed", 0, "the first seed; 0 takes one from the clock")
)

// Whatever is written, by whom, in which order and under which rules: each viewer gets
// from the fan-out what PocketBase alone would have sent. Two apps, one of them without
// the fan-out, do the same random things one after the other. A failure names the seed.
func TestBroadcastEqualsPocketBase(t *testing.T) {
	t.Parallel()
	seed := *differentialSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	began, events, changes := time.Now(), 0, 0
	for run := 0; run < 6 || time.Since(began) < *differentialFor; run++ {
		e, c := compareRun(t, seed+uint64(run))
		events, changes = events+e, changes+c
		if t.Failed() {
			return
		}
		if *differentialFor > 0 && run%20 == 19 {
			fmt.Printf("%s: %d runs from seed %d, %d operations, %d events\n", time.Since(began).Round(time.Second), run+1, seed, changes, events)
		}
	}
	if *differentialFor > 0 {
		fmt.Printf("%s: no difference from seed %d, %d operations, %d events\n", time.Since(began).Round(time.Second), seed, changes, events)
	}
	if events < 1000 {
		t.Errorf("seed %d: %d events in all: the comparison has nothing to compare", seed, events)
	}
}

var differentialRules = []*string{
	nil,
	types.Pointer(""),
	types.Pointer(`userId = "" || userId = @request.auth.id`),
	types.Pointer(`userId = "" || userId = @request.auth.id`),
	types.Pointer(`@request.auth.id != "" && userId = @request.auth.id`),
	types.Pointer(`category = "b" && userId != @request.auth.id`),
	types.Pointer(`approved = true && (userId = "" || userId = @request.auth.id)`),
	types.Pointer(`rank > 0 && (due = "" || userId = @request.auth.id)`),
	types.Pointer(`data.public = true`),
	types.Pointer(`data.public = true || @request.auth.email ~ "new"`),
	types.Pointer(`title ~ "open" || @request.auth.verified = true`),
	types.Pointer(`userId = "" || @collection.users.id ?= userId && @request.auth.id != ""`),
	types.Pointer(`secretNote = "" && userId = ""`),
	types.Pointer(`@request.query.filter = "" || category = "b"`),
}

// Of every kind: compiled and asked, refused, invalid.
var differentialFilters = []string{
	`category = 'b'`, `category != "b"`, `id = "r00000000000003"`, `userId = ""`, `"general" = category`,
	`userId = 'owner0000000000' || category = "general"`, `(category = "b") && (userId = "" || title = "open")`,
	`title ~ "open" && userId = ''`, `category:lower = "b"`, `title = 5`, `title != title`, `category = category`,
	`data.public = true`, `approved = true`, `approved = true && category = "b"`, `metadata = null`,
	`created > "2020-01-01"`, `created <= @now`, `secretNote = ""`, `secretNote = "hidden" || category = "b"`,
	`@request.auth.id != ""`, `userId = @request.auth.id`, `@collection.users.id ?= userId`,
	`rank > 4`, `rank = "5" || approved = 0`, `rank < "a" && kind != null`, `rank = "5e0"`, `-3.25 >= rank`, `rank > kind`, `rank != kind`,
	`due >= "2026-06-01"`, `due = "" || due < "2026-01-01 11:00:00.000Z"`, `due = null && approved != true`, `kind = 5`, `kind ?= "memo"`,
	`title != "@request."`, `category = `, `nothing = "x"`, `category = "b" // not "general"`, ` `,
}

// filtered is the topic of a filter.
func filtered(topic, filter string) string {
	options, _ := json.Marshal(map[string]any{"query": map[string]string{"filter": filter}})
	return topic + "?options=" + url.QueryEscape(string(options))
}

var viewers = []string{"guest", "owner0000000000", "other0000000000", "superuser"}

const wellKnownId = "r00000000000003"

var movers = []string{"mover 1", "mover 2", "mover 3"} // they sign in and change topics

// compareRun does the same random things in both worlds and compares what arrived. It
// returns how many events and operations there were.
func compareRun(t *testing.T, seed uint64) (events, operations int) {
	random := rand.New(rand.NewPCG(seed, 1))
	pick := func(options ...string) string { return options[random.IntN(len(options))] }

	var failed bool
	t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
		over := apptest.Client(t, 1+int(seed%2))
		topics := []string{
			filtered("aiContent/*", pick(differentialFilters...)), filtered("aiContent/*", pick(differentialFilters...)),
			filtered("aiContent/*", pick(differentialFilters...)), filtered("aiContent/"+wellKnownId, pick(differentialFilters...)),
		}
		worlds := []*world{newWorld(t, over, true, topics, nil), newWorld(t, over, false, topics, nil)}
		both := func(do func(w *world)) {
			for _, w := range worlds {
				do(w)
			}
		}
		var log []string
		created := 0
		randomFields := func() fields {
			return fields{
				title:  pick("open", "plain", "plain", "plain", "open again", "plain again", "after", "quiet", "refuse"),
				userId: pick("", "", viewers[1], viewers[2]), category: pick("general", "b"), note: pick("", "", "hidden"),
				public: random.IntN(2) == 0, approved: random.IntN(2) == 0,
				rank: []float64{0, 5, -3.25, 1e18}[random.IntN(4)], due: pick("", "2026-01-01 10:00:00.000Z", "2027-01-01 10:00:00.000Z"), kind: pick("", "5", "memo"),
			}
		}
		randomOp := func() randomWrite {
			op := randomWrite{action: pick("create", "create", "update", "update", "update", "delete"), fields: randomFields()}
			if op.action == "create" {
				op.id = fmt.Sprintf("r%014d", created)
				created++
			} else {
				op.id = fmt.Sprintf("r%014d", random.IntN(created+1))
				op.stale = random.IntN(5) == 0
			}
			return op
		}
		hold := 0
		for range 90 {
			operations++
			kind := random.IntN(24)
			switch {
			case kind < 5:
				f, channel := randomFields(), fmt.Sprint("c", random.IntN(60))
				log = append(log, fmt.Sprintf("webhook %s %+v", channel, f))
				both(func(w *world) { w.webhook(channel, f) })
			case kind < 10:
				op := randomOp()
				log = append(log, fmt.Sprintf("%+v", op))
				both(func(w *world) { _ = w.write(w.app, op) }) // refused, in both
			case kind < 14:
				var ops []randomWrite
				for range 2 + random.IntN(3) {
					op := randomOp()
					if len(ops) > 0 && op.action != "create" && random.IntN(2) == 0 {
						op.id = ops[random.IntN(len(ops))].id
					}
					ops = append(ops, op)
				}
				undone := random.IntN(5) == 0
				log = append(log, fmt.Sprintf("transaction, undone: %t: %+v", undone, ops))
				for i, op := range ops {
					if op.action == "delete" && slices.ContainsFunc(ops[:i], func(o randomWrite) bool { return o.id == op.id }) {
						both(func(w *world) { w.vanished[op.id] = true })
					}
				}
				both(func(w *world) {
					_ = w.app.RunInTransaction(func(tx core.App) error {
						for _, op := range ops {
							if err := w.write(tx, op); err != nil {
								return err
							}
						}
						if undone {
							return errors.New("undo")
						}
						return nil
					})
				})
			case kind < 16:
				list, view := differentialRules[random.IntN(len(differentialRules))], differentialRules[random.IntN(len(differentialRules))]
				log = append(log, fmt.Sprintf("rules %v %v", text(list), text(view)))
				both(func(w *world) {
					content, err := w.app.FindCollectionByNameOrId(store.Content)
					w.must(err)
					content.ListRule, content.ViewRule = list, view
					w.must(w.app.Save(content))
				})
			case kind == 16:
				user, what := pick(viewers[1:3]...), pick("email", "verified", "password")
				log = append(log, "change "+what+" of "+user)
				email := fmt.Sprintf("new%d@example.com", operations)
				both(func(w *world) { w.changeUser(user, what, email) })
			case kind < 20:
				mover, viewer := pick(movers...), pick(viewers...)
				topics := [][]string{
					{"aiContent/*"}, {}, {"aiContent/" + wellKnownId}, {"aiContent/*", "users/*"}, {`aiContent/*?options={"query":{"fields":"id"}}`},
					{filtered("aiContent/*", pick(differentialFilters...))}, {filtered("aiContent/*", pick(differentialFilters...)), "aiContent/" + wellKnownId},
					{"modelriverCallbacks/*", "aiContent/*"}, {"modelriverCallbacks/" + wellKnownId},
				}[random.IntN(9)]
				log = append(log, fmt.Sprint(mover, " as ", viewer, ": ", topics))
				both(func(w *world) { w.server.SetTopics(w.t, w.streams[mover].ID, w.tokens[viewer], topics...) })
			case kind == 22, kind == 23:
				op := randomOp()
				lastError, attempts, remove, rule := pick("a", "b", ""), random.IntN(4), random.IntN(4) == 0, random.IntN(8) == 0
				log = append(log, fmt.Sprintf("callback of %+v: %q, attempts %d, removed: %t, rule changes: %t", op, lastError, attempts, remove, rule))
				both(func(w *world) {
					if rule {
						callbacks, err := w.app.FindCollectionByNameOrId(store.Callbacks)
						w.must(err)
						callbacks.ListRule = []*string{nil, types.Pointer(""), types.Pointer("attempts < 2 || @request.auth.id != ''")}[attempts%3]
						w.must(w.app.Save(callbacks))
					}
					_ = w.app.RunInTransaction(func(tx core.App) error {
						if err := w.writeCallback(tx, op.id, lastError, attempts, remove); err != nil {
							return err
						}
						return w.write(tx, op)
					})
				})
			case kind == 20:
				hold = 12
				log = append(log, "hold")
				both((*world).hold)
			default:
				log = append(log, "reconnect")
				mover := pick(movers...)
				both(func(w *world) {
					before := fmt.Sprint(mover, " before ", operations)
					w.streams[before], w.received[before] = w.streams[mover], w.received[mover]
					w.received[mover] = nil
					w.streams[mover] = w.server.Subscribe(t, "", "aiContent/*")
				})
			}
			if hold--; hold == 0 {
				both((*world).release)
			}
		}
		both((*world).release)
		both((*world).end)

		// What the fan-out sent is known by now; PocketBase sends from goroutines.
		equal := func(report bool) bool {
			same := true
			both((*world).gather)
			for name := range worlds[0].streams {
				ours, stocks := worlds[0].received[name], worlds[1].received[name]
				surplus, missing := difference(ours, stocks), difference(stocks, ours)
				missing = slices.DeleteFunc(missing, func(event string) bool { return worlds[0].vanished[idOf(event)] })
				if len(surplus)+len(missing) == 0 {
					continue
				}
				same = false
				if report {
					t.Errorf("seed %d, %s:\nonly from the fan-out:\n%s\nonly from PocketBase:\n%s", seed, name, strings.Join(surplus, "\n"), strings.Join(missing, "\n"))
				}
			}
			return same
		}
		for deadline := time.Now().Add(20 * time.Second); !equal(time.Now().After(deadline)) && !t.Failed(); {
			time.Sleep(10 * time.Millisecond)
		}
		if failed = t.Failed(); failed {
			t.Log(strings.Join(log, "\n"))
		}
		for _, received := range worlds[0].received {
			events += len(received)
		}
	})
	return events, operations
}

// difference returns what a has more than b.
func difference(a, b []string) []string {
	b = slices.Clone(b)
	var more []string
	for _, event := range a {
		if i := slices.Index(b, event); i >= 0 {
			b = slices.Delete(b, i, i+1)
		} else {
			more = append(more, event)
		}
	}
	return more
}

var timestamps = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z`)
