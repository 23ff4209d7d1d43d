package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// leaving is the topic of a filter whose subscriber is told of what leaves it.
func leaving(topic, filter string) string {
	return strings.Replace(filtered(topic+"?leave=1", filter), "1?", "1&", 1)
}

// Whatever is written, the events of a topic that asks for leave make the list that the
// server would give, wherever the server says that they are exact.
func TestLiveTopicsHoldTheList(t *testing.T) {
	t.Parallel()
	// Each run is of one rule, and of some rules nothing is exact, or nothing leaves.
	const enough = 60
	exact, left, runs := 0, 0, 0
	for ; runs < 6 || (exact < enough || left < enough) && runs < 30; runs++ {
		e, l := holdTheList(t, uint64(time.Now().UnixNano()))
		exact, left = exact+e, left+l
	}
	t.Logf("%d runs, %d exact topics, %d records left one", runs, exact, left)
	if exact < enough || left < enough {
		t.Errorf("got %d exact topics and %d records that left one, in %d runs", exact, left, runs)
	}
}

func holdTheList(t *testing.T, seed uint64) (exact, left int) {
	random := rand.New(rand.NewPCG(seed, 2))
	pick := func(options ...string) string { return options[random.IntN(len(options))] }
	rule := differentialRules[1+random.IntN(len(differentialRules)-1)]
	var topics []string
	for range 6 {
		topics = append(topics, leaving("aiContent/*", pick(differentialFilters[:20]...)))
	}
	w := newWorld(t, apptest.Client(t, 1+int(seed%2)), true, topics, rule)
	randomOp := func(created int) randomWrite {
		return randomWrite{
			action: pick("create", "update", "update", "update", "delete"), id: fmt.Sprintf("r%014d", random.IntN(created+1)), stale: random.IntN(5) == 0,
			fields: fields{
				// Not what the hooks hide from events, or save once more behind a commit.
				title:  pick("open", "plain", "plain", "refuse"),
				userId: pick("", "", viewers[1], viewers[2]), category: pick("general", "b"), note: pick("", "hidden"),
				public: random.IntN(2) == 0, approved: random.IntN(2) == 0,
			},
		}
	}
	for i := range 80 {
		switch random.IntN(4) {
		case 0:
			w.webhook(fmt.Sprint("c", i), randomOp(0).fields)
		case 1:
			undone := random.IntN(5) == 0
			_ = w.app.RunInTransaction(func(tx core.App) error {
				for range 2 + random.IntN(3) {
					if err := w.write(tx, randomOp(20)); err != nil {
						return err
					}
				}
				if undone {
					return errors.New("undo")
				}
				return nil
			})
		default:
			_ = w.write(w.app, randomOp(20))
		}
	}
	for _, viewer := range viewers {
		for _, topic := range topics {
			name := viewer + " " + topic
			var shown map[string]bool
			isExact, gone := false, 0
			equal := func() bool {
				w.gather()
				shown, isExact, gone = replay(t, *rule+" FOR "+name, w.received[name])
				return maps.Equal(shown, w.list(viewer, topic))
			}
			for deadline := time.Now().Add(20 * time.Second); !equal() && isExact; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("seed %d, rule %s, %s:\nshown %v\nlist  %v\nevents\n%s", seed, *rule, name,
						slices.Sorted(maps.Keys(shown)), slices.Sorted(maps.Keys(w.list(viewer, topic))), strings.Join(w.received[name], "\n"))
				}
			}
			if isExact {
				exact, left = exact+1, left+gone
			}
		}
	}
	return exact, left
}

// replay returns what a list shows that does what the events say.
func replay(t *testing.T, name string, events []string) (shown map[string]bool, exact bool, left int) {
	t.Helper()
	shown = map[string]bool{}
	ever := map[string]bool{}
	for _, event := range events {
		var e struct {
			Action string
			Exact  bool
			Record struct{ Id string }
		}
		if err := json.Unmarshal([]byte(event), &e); err != nil {
			t.Fatal(err)
		}
		switch e.Action {
		case "live":
			exact = e.Exact
		case "alive":
		case "leave":
			if !ever[e.Record.Id] {
				t.Errorf("told that %s left, which was never there, %s:\n%s", e.Record.Id, name, strings.Join(events, "\n"))
			}
			if shown[e.Record.Id] {
				left++
			}
			delete(shown, e.Record.Id)
		case "delete":
			delete(shown, e.Record.Id)
		default:
			shown[e.Record.Id], ever[e.Record.Id] = true, true
		}
	}
	return shown, exact, left
}

// list returns what the server lists for the viewer.
func (w *world) list(viewer, topic string) map[string]bool {
	u, err := url.Parse(topic)
	w.must(err)
	var options struct{ Query map[string]string }
	w.must(json.Unmarshal([]byte(u.Query().Get("options")), &options))
	status, body := w.server.call(w.t, w.tokens[viewer], http.MethodGet, "/api/collections/aiContent/records?perPage=500&fields=id&filter="+url.QueryEscape(options.Query["filter"]), "")
	var page struct{ Items []struct{ Id string } }
	if status == http.StatusOK {
		w.must(json.Unmarshal([]byte(body), &page))
	}
	ids := map[string]bool{}
	for _, item := range page.Items {
		ids[item.Id] = true
	}
	return ids
}
