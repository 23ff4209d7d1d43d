package tests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A watcher looks at everything all the time: over the API and live.
type watcher struct {
	name, token string
	run         *askRun

	mu     sync.Mutex
	listed map[string]bool // questions of their own, as texts
	live   map[string]bool
}

// try calls the server's API, which may be down: then the status is 0.
func (run *askRun) try(ctx context.Context, token, method, path, body string) (status int, answer []byte) {
	request, err := http.NewRequestWithContext(ctx, method, run.URL+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", token)
	response, err := askClient.Do(request)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	if answer, err = io.ReadAll(response.Body); err != nil {
		return 0, nil
	}
	return response.StatusCode, answer
}

// watch looks until ctx ends.
func (v *watcher) watch(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() {
		for ctx.Err() == nil {
			v.stream(ctx)
			time.Sleep(20 * time.Millisecond)
		}
	})
	both.Go(func() {
		for ctx.Err() == nil {
			v.poll(ctx)
			time.Sleep(150 * time.Millisecond)
		}
	})
	both.Wait()
}

func (v *watcher) poll(ctx context.Context) {
	paths := []string{
		"/api/collections/aiRequests/records?perPage=200&sort=-created&expand=record",
		"/api/collections/aiContent/records?perPage=200&sort=-created&expand=aiRequests_via_record",
		"/api/collections/modelriverChannels/records",
		"/api/collections/modelriverCallbacks/records",
	}
	if id := v.another(); id != "" {
		paths = append(paths, "/api/collections/aiRequests/records/"+id+"?expand=record")
	}
	for _, path := range paths {
		status, answer := v.run.try(ctx, v.token, http.MethodGet, path, "")
		v.see(path, answer, v.listed)
		if status == http.StatusOK && strings.Contains(path, "modelriver") {
			v.run.violate("%s may look at %s", v.name, path)
		}
	}
}

// another returns the id of somebody else's request.
func (v *watcher) another() string {
	ledger := v.run.gateway.askLedger
	ledger.mu.Lock()
	defer ledger.mu.Unlock()
	for _, q := range ledger.questions { // in random order
		if q.user != v.name && q.id != "" {
			return q.id
		}
	}
	return ""
}

// see notes what is shown to the watcher that is not theirs, and keeps what is.
func (v *watcher) see(where string, text []byte, own map[string]bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, match := range questionText.FindAllSubmatch(text, -1) {
		if user := string(match[1]); user != v.name {
			v.run.violate("%s sees what %s asked in %s: %.300s", v.name, user, where, match[0])
			return
		}
		own[string(match[0])] = true
	}
	for name, id := range v.run.ids {
		if name != v.name && bytes.Contains(text, []byte(id)) {
			v.run.violate("%s sees the id of %s in %s: %.300s", v.name, name, where, text)
			return
		}
	}
	if bytes.Contains(text, []byte(unmatchedUser)) {
		v.run.violate("%s sees what may be anybody's in %s: %.300s", v.name, where, text)
	}
}

// stream subscribes to everything until the connection ends.
func (v *watcher) stream(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, v.run.URL+"/api/realtime", nil)
	if err != nil {
		panic(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<24)
	subscribed := false
	for lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "id:"); ok && !subscribed {
			subscribed = true
			body, _ := json.Marshal(map[string]any{"clientId": id, "subscriptions": []string{
				"aiRequests/*", "aiContent/*", "modelriverChannels/*", "modelriverCallbacks/*",
				`aiContent/*?options={"query":{"expand":"aiRequests_via_record"}}`, `aiRequests/*?options={"query":{"expand":"record"}}`,
			}})
			if status, _ := v.run.try(ctx, v.token, http.MethodPost, "/api/realtime", string(body)); status != http.StatusNoContent {
				return
			}
		}
		v.see("realtime", lines.Bytes(), v.live)
	}
}

// asks has a user ask until ctx ends: one question, or several in a batch, of which some
// can't be created.
func (run *askRun) asks(ctx context.Context, user string, rng *rand.Rand) {
	for ctx.Err() == nil {
		run.pause.RLock()
		if rng.IntN(4) > 0 {
			run.ask(run.gateway.enter(user, ""))
		} else {
			b := &batch{unfit: rng.IntN(5) == 0}
			for range 2 + rng.IntN(3) {
				q := run.gateway.enter(user, "")
				q.batch = b
				b.questions = append(b.questions, q)
			}
			run.askBatch(b)
		}
		run.pause.RUnlock()
		time.Sleep(time.Duration(rng.IntN(int(2 * askPause))))
	}
}

// askPause is what a user waits between questions, on average.
const askPause = 120 * time.Millisecond

func (q *question) body() string {
	return `{"workflow":"story","input":{"messages":[{"role":"user","content":` + jsonText(q.text) + `}]}}`
}

const requestRecords = "/api/collections/aiRequests/records"

// ask creates a request.
func (run *askRun) ask(q *question) {
	status, answer := run.try(context.Background(), run.tokens[q.user], http.MethodPost, requestRecords, q.body())
	var created struct{ ID string }
	_ = json.Unmarshal(answer, &created)
	run.created(q, status, created.ID)
}

// askBatch creates the requests of a batch.
func (run *askRun) askBatch(b *batch) {
	var requests []string
	for _, q := range b.questions {
		requests = append(requests, `{"method":"POST","url":"`+requestRecords+`","body":`+q.body()+`}`)
	}
	if b.unfit {
		requests = append(requests, `{"method":"POST","url":"`+requestRecords+`","body":{"workflow":"story","input":[]}}`)
	}
	status, answer := run.try(context.Background(), run.tokens[b.questions[0].user], http.MethodPost, "/api/batch", `{"requests":[`+strings.Join(requests, ",")+`]}`)
	if b.unfit && status == http.StatusOK {
		run.violate("a batch that can't be created was: %s", answer)
	}
	var created []struct{ Body struct{ ID string } }
	_ = json.Unmarshal(answer, &created)
	for i, q := range b.questions {
		id := ""
		if i < len(created) {
			id = created[i].Body.ID
		}
		run.created(q, status, id)
	}
}

// created enters what the client was answered.
func (run *askRun) created(q *question, status int, id string) {
	run.gateway.mu.Lock()
	defer run.gateway.mu.Unlock()
	q.answered = status
	if status == http.StatusOK {
		q.id = id
	}
}
