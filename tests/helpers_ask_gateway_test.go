package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A gateway stands between the server and two simulators, for requests, webhooks and
// callbacks. It knows what passes, is unreliable, and can stop at a chosen moment. The first
// simulator is as unreliable as its flags say, the second takes the pointed questions.
type gateway struct {
	*askLedger
	url        string
	webhookURL string // of the server, once it is known
	simulators [2]string
	config     *http.Server

	rngMu   sync.Mutex
	rng     *rand.Rand
	moody   bool
	reached chan *question // a question has come to the moment that it stops at
	resume  chan struct{}
	ended   chan struct{}
}

func newGateway(t testing.TB, ledger *askLedger, seed uint64) *gateway {
	g := &gateway{askLedger: ledger, rng: rand.New(rand.NewPCG(seed, 2)), reached: make(chan *question), resume: make(chan struct{}), ended: make(chan struct{})}
	for i := range g.simulators {
		g.simulators[i] = "http://" + freeAddress(t)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/ai/async", g.handleRequest)
	for i := range g.simulators {
		mux.HandleFunc(fmt.Sprintf("POST /%d/webhook", i), func(w http.ResponseWriter, r *http.Request) { g.handleWebhook(w, r, i) })
		mux.HandleFunc(fmt.Sprintf("POST /%d/v1/callback/{channel}", i), func(w http.ResponseWriter, r *http.Request) { g.handleCallback(w, r, i) })
	}
	mux.HandleFunc("POST /moment/{name}", func(_ http.ResponseWriter, r *http.Request) { // from momentHook
		body, _ := io.ReadAll(r.Body)
		g.moment(r.PathValue("name"), g.find(body))
	})
	server := httptest.NewUnstartedServer(mux)
	server.Config.ErrorLog = nil
	server.Start()
	g.url, g.config = server.URL, server.Config
	t.Cleanup(func() {
		close(g.ended)
		server.CloseClientConnections()
		server.Close()
	})
	return g
}

// momentHook is a host's own hook, which tells the gateway of moments inside the server.
const momentHook = `
onRecordUpdate((e) => {
	const asked = e.record.getString("input")
	const was = e.record.original().getString("nextAttempt"), is = e.record.getString("nextAttempt")
	if (asked.includes("-pointed")) {
		const moment = e.record.getString("state") == "sent" ? "outcome" : was != "" && is == "" ? "claim" : ""
		if (moment) $http.send({ url: $os.getenv("TEST_MOMENTS") + moment, method: "POST", body: asked })
	}
	e.next()
}, "aiRequests")
onRecordCreate((e) => {
	e.next()
	if (e.record.getString("title").includes("-pointed")) {
		$http.send({ url: $os.getenv("TEST_MOMENTS") + "content", method: "POST", body: e.record.getString("title") })
	}
}, "aiContent")
onRecordAfterCreateSuccess((e) => {
	if (e.record.getString("title").includes("-pointed")) {
		$http.send({ url: $os.getenv("TEST_MOMENTS") + "stored", method: "POST", body: e.record.getString("title") })
	}
	e.next()
}, "aiContent")`

// moment waits if the question is to stop here, once, until the server was killed and started
// again. It reports whether it was.
func (g *gateway) moment(name string, q *question) bool {
	g.mu.Lock()
	stops := q != nil && q.stopAt == name
	if stops {
		q.stopAt = ""
	}
	g.mu.Unlock()
	if stops {
		select { // a test that has failed waits for nothing
		case g.reached <- q:
		case <-g.ended:
		}
		select {
		case <-g.resume:
		case <-g.ended:
		}
	}
	return stops
}

// dice throws one with n sides, and 0 always if the gateway is reliable for this question.
func (g *gateway) dice(q *question, n int) int {
	g.rngMu.Lock()
	defer g.rngMu.Unlock()
	if !g.moody || q != nil && q.pointed {
		return 0
	}
	return g.rng.IntN(n)
}

func (g *gateway) setMoody(moody bool) {
	g.rngMu.Lock()
	defer g.rngMu.Unlock()
	g.moody = moody
}

func hangUp() { panic(http.ErrAbortHandler) }

// handleRequest passes a request on, and its answer back.
func (g *gateway) handleRequest(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		hangUp() // the server was killed while it sent
	}
	q := g.find(body)
	if q == nil {
		g.violate("a request that nobody made: %s", body)
		hangUp()
	}
	g.entered(q)
	if g.moment("asked", q) {
		hangUp()
	}
	before, after := g.dice(q, 40), g.dice(q, 25)
	switch before {
	case 1:
		hangUp()
	case 2:
		http.Error(w, "the gateway got no answer", http.StatusGatewayTimeout)
		return
	case 3, 4, 5:
		time.Sleep(time.Duration(before) * 100 * time.Millisecond)
	}
	simulator := g.simulators[0]
	if q.pointed {
		simulator = g.simulators[1]
	}
	status, header, answer, err := g.pass(simulator+r.URL.Path, r.Header, body)
	g.taken(q, status, answer, err)
	g.moment("taken", q)
	switch {
	case err != nil || after == 1:
		hangUp()
	case after == 2:
		http.Error(w, "the gateway got no answer", http.StatusGatewayTimeout)
		return
	case after == 3:
		time.Sleep(300 * time.Millisecond)
	}
	answerWith(w, status, header, answer)
}

// handleWebhook passes a webhook on. The callback that it wants comes this way too.
func (g *gateway) handleWebhook(w http.ResponseWriter, r *http.Request, simulator int) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		hangUp()
	}
	body = bytes.ReplaceAll(body, []byte(g.simulators[simulator]), fmt.Appendf(nil, "%s/%d", g.url, simulator))
	if err := modelriver.Sign(r.Header, "body", testSecret, time.Now(), body); err != nil {
		g.violate("%v", err)
	}
	channel := r.Header.Get(modelriver.HeaderChannelID)
	q := g.came(channel, body)
	g.moment("webhook", q)
	if g.dice(q, 10) == 1 {
		time.Sleep(time.Duration(1+g.dice(q, 15)) * 100 * time.Millisecond)
	}
	if g.stopsAt(q, "half a webhook") {
		g.passHalf(q, r.Header, body)
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	status, header, answer, err := g.pass(g.webhookURL, r.Header, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	g.webhookAnswered(channel, status, answer)
	if status == http.StatusOK && g.moment("webhook answered", q) {
		hangUp()
	}
	answerWith(w, status, header, answer)
}

func (g *gateway) handleCallback(w http.ResponseWriter, r *http.Request, simulator int) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		hangUp()
	}
	q := g.find(body)
	g.moment("callback", q)
	_, path, _ := strings.Cut(r.URL.Path[1:], "/")
	status, header, answer, err := g.pass(g.simulators[simulator]+"/"+path, r.Header, body)
	if err != nil {
		hangUp()
	}
	g.calledBack(r.PathValue("channel"), status)
	g.moment("called back", q)
	answerWith(w, status, header, answer)
}

// pass posts to url, whoever may have gone meanwhile.
func (g *gateway) pass(url string, header http.Header, body []byte) (status int, answered http.Header, answer []byte, err error) {
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	request.Header = header.Clone()
	response, err := askClient.Do(request)
	if err != nil {
		return 0, nil, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, response.Header, answer, err
}

// passHalf posts half of a webhook, and the rest when the server was killed and started again.
func (g *gateway) passHalf(q *question, header http.Header, body []byte) {
	request, err := http.NewRequest(http.MethodPost, g.webhookURL, bytes.NewReader(body))
	if err != nil {
		g.violate("%v", err)
		return
	}
	request.Header = header.Clone()
	var raw bytes.Buffer
	conn, dialed := net.Dial("tcp", request.URL.Host)
	if err := errors.Join(dialed, request.Write(&raw)); err != nil {
		g.violate("half a webhook: %v", err)
		return
	}
	defer conn.Close()
	half := raw.Len() - len(body)/2
	_, _ = conn.Write(raw.Bytes()[:half])
	g.moment("half a webhook", q)
	_, _ = conn.Write(raw.Bytes()[half:])
}

func answerWith(w http.ResponseWriter, status int, header http.Header, body []byte) {
	for _, name := range []string{"Content-Type", "Retry-After"} {
		if value := header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// askClient is for all that may be cut off.
var askClient = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// simulated sums up what the simulators count.
func (g *gateway) simulated() (generations, ended int) {
	for _, url := range g.simulators {
		response, err := askClient.Get(url + "/status")
		if err != nil {
			g.violate("%v", err)
			continue
		}
		var status map[string]int
		err = json.NewDecoder(response.Body).Decode(&status)
		response.Body.Close()
		if err != nil {
			g.violate("%v", err)
		}
		generations += status["generations"]
		for name, n := range status {
			if name != "posts" && name != "generations" {
				ended += n
			}
		}
	}
	return generations, ended
}
