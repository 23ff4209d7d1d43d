package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
)

// A liveRun is a real server under random changes, and tabs full of live queries of it.
type liveRun struct {
	*server
	t        testing.TB
	rng      *rand.Rand
	token    string    // of a superuser
	users    [2]string // ann and bob
	viewers  []*viewer
	mover    *viewer // who signs in and out
	compared int     // queries
	changes  atomic.Int64
	sent     atomic.Int64 // webhooks

	pool sync.Mutex
	ids  []string // of rows that may be there

	log   sync.Mutex
	lines []string // what was done
}

const (
	writers     = 8
	writerPause = 10 * time.Millisecond // of one writer for each change
	rows        = 300                   // that are kept, about
)

func newLiveRun(t testing.TB, seed uint64) *liveRun {
	t.Helper()
	s := startServer(t, filepath.Join(t.TempDir(), "pb_data"))
	r := &liveRun{server: s, t: t, rng: rand.New(rand.NewPCG(seed, 1)), token: s.Superuser()}
	r.users = [2]string{s.user(r.token, "ann@example.com"), s.user(r.token, "bob@example.com")}
	s.API(r.token, http.MethodPatch, "/api/settings", map[string]any{"batch": map[string]any{"enabled": true, "maxRequests": 100, "timeout": 10}}, nil)

	var users, content struct {
		ID     string
		Fields []map[string]any
	}
	s.API(r.token, http.MethodGet, "/api/collections/users", nil, &users)
	s.API(r.token, http.MethodGet, "/api/collections/aiContent", nil, &content)
	of := func(kind, name string, more map[string]any) map[string]any {
		field := map[string]any{"type": kind, "name": name}
		for key, value := range more {
			field[key] = value
		}
		return field
	}
	kinds := of("select", "kind", map[string]any{"maxSelect": 1, "values": []string{"memo", "draft", "Ünï"}})
	s.API(r.token, http.MethodPatch, "/api/collections/aiContent", map[string]any{"fields": append(content.Fields,
		of("number", "rank", nil), of("bool", "approved", nil), of("date", "due", nil), kinds,
		of("select", "tags", map[string]any{"maxSelect": 3, "values": []string{"red", "green", "blue"}}),
		of("relation", "owner", map[string]any{"maxSelect": 1, "collectionId": users.ID}),
		of("text", "secret", map[string]any{"hidden": true}),
	)}, nil)
	s.API(r.token, http.MethodPost, "/api/collections", map[string]any{"name": "notes", "type": "base", "listRule": "", "viewRule": "", "fields": []map[string]any{
		of("text", "title", nil), of("number", "rank", nil), of("bool", "done", nil), of("date", "due", nil), kinds,
		of("relation", "content", map[string]any{"maxSelect": 1, "collectionId": content.ID}),
		of("autodate", "created", map[string]any{"onCreate": true}), of("autodate", "updated", map[string]any{"onCreate": true, "onUpdate": true}),
	}}, nil)
	for range rows / 3 {
		r.create(r.rng)
	}
	return r
}

// StopNetworkEvents has the browser tell no more of what the tab loads, which costs more
// than to load it.
func (p *tab) StopNetworkEvents() {
	p.t.Helper()
	callDevTools(p, network.Disable, cdp.Empty{})
}

// A liveFault is what happens while the rows change.
type liveFault struct {
	name string
	do   func()
}

func (r *liveRun) faults() []liveFault {
	anyone := func() *viewer { return r.viewers[r.rng.IntN(len(r.viewers))] }
	return []liveFault{
		{"nothing", func() {}},
		{"a connection is cut", func() { anyone().proxy.Cut() }},
		{"every connection is cut, again and again", func() {
			for range 1 + r.rng.IntN(4) {
				for _, v := range r.viewers {
					v.proxy.Cut()
				}
				r.sleep(0, 500*time.Millisecond)
			}
		}},
		{"the server is killed", r.Restart},
		{"the server is stopped", func() {
			r.server.Stop()
			r.server.Start()
		}},
		{"somebody signs in or out", func() {
			for range 1 + r.rng.IntN(3) {
				r.signIn(r.mover, pick(r.rng, "", "ann@example.com", "bob@example.com"))
				r.sleep(0, 500*time.Millisecond)
			}
		}},
		{"the rule changes", r.changeRule},
		{"the rule changes to and fro", func() {
			r.changeRule()
			r.sleep(0, 300*time.Millisecond)
			r.changeRule()
		}},
		{"others are asked for", r.turnPages},
		{"a user changes", func() {
			r.do(http.MethodPatch, "/api/collections/users/records/"+r.users[r.rng.IntN(2)], map[string]any{
				"name": pick(r.rng, "anna", "bob", ""), "verified": r.rng.IntN(2) == 0,
			})
		}},
	}
}

// changeRule sets who may list. The rule's own decidability is not at stake: each is.
func (r *liveRun) changeRule() {
	const own = `userId = "" || userId = @request.auth.id`
	rules := []any{
		own, own, own, "", `approved = true || userId = @request.auth.id`, `rank > 0`, `title ~ "o" || userId = @request.auth.id`,
		`category != "c" && (` + own + `)`, `@request.auth.id != ""`, `data.n < 7`, `secret = "" || secret = "x" && rank < 5`, nil,
	}
	r.do(http.MethodPatch, "/api/collections/aiContent", map[string]any{"listRule": rules[r.rng.IntN(len(rules))]})
}

// turnPages stops some queries and starts others of the same filter.
func (r *liveRun) turnPages() {
	for _, v := range r.viewers {
		for range 2 {
			name := v.queries[r.rng.IntN(len(v.queries))]
			old := eval[struct{ Collection, Filter string }](v.tab, fmt.Sprintf(
				`(queries[%[1]q].stop(), {collection: queries[%[1]q].collection, filter: queries[%[1]q].query.filter ?? ""})`, name))
			r.startAs(v, name, old.Collection, old.Filter)
		}
	}
}

// do asks the API for a change, which a fault may prevent, and reports whether it was made.
func (r *liveRun) do(method, path string, body any) bool {
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err) // our own values always encode
	}
	request, err := http.NewRequest(method, r.URL+path, bytes.NewReader(raw))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", r.token)
	status := 0
	if response, err := http.DefaultClient.Do(request); err == nil {
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		status = response.StatusCode
	}
	r.note("%s %s %s: %d", method, path, raw, status)
	return status/100 == 2
}

// note keeps what was done for a failure's report.
func (r *liveRun) note(format string, values ...any) {
	r.log.Lock()
	defer r.log.Unlock()
	if len(r.lines) > 20_000 {
		r.lines = slices.Clone(r.lines[10_000:])
	}
	r.lines = append(r.lines, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, values...))
}

// refresh finds out which rows there are.
func (r *liveRun) refresh() {
	r.t.Helper()
	const most = 1000 // in a page of PocketBase's
	var ids []string
	for page := 1; len(ids) == (page-1)*most; page++ {
		var list struct{ Items []struct{ ID string } }
		r.API(r.token, http.MethodGet, fmt.Sprint("/api/collections/aiContent/records?skipTotal=1&fields=id&perPage=", most, "&page=", page), nil, &list)
		for _, item := range list.Items {
			ids = append(ids, item.ID)
		}
	}
	r.pool.Lock()
	defer r.pool.Unlock()
	r.ids = ids
}

func pick[T any](rng *rand.Rand, options ...T) T { return options[rng.IntN(len(options))] }
