package replica

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// apps starts an app on each node, all together, on an empty database, each with a route of its own, and returns clients of them.
func (c *cluster) apps(t *testing.T) (apps [3]*tests.TestApp, clients [3]*client) {
	t.Helper()
	var all sync.WaitGroup
	for i := range apps {
		all.Go(func() {
			node, err := Open(c.configs[i])
			if err != nil {
				t.Error(err)
				return
			}
			apps[i] = newApp(t, node, filepath.Dir(c.paths[i]))
			apps[i].OnServe().BindFunc(func(e *core.ServeEvent) error {
				e.Router.Bind(apis.CORS(apis.CORSConfig{AllowOrigins: []string{"*"}})) // as PocketBase does before
				return e.Next()
			})
			node.Register(apps[i], nil)
			if c.register != nil {
				c.register(apps[i], node)
			}
			c.ran[i] = new([]string)
			for _, job := range []string{"job", "local"} {
				apps[i].Cron().MustAdd(job, "0 0 1 1 *", func() { *c.ran[i] = append(*c.ran[i], c.configs[i].Node+" "+job) })
			}
			apps[i].OnServe().BindFunc(func(e *core.ServeEvent) error {
				e.Router.POST("/echo", func(e *core.RequestEvent) error {
					body, err := io.ReadAll(e.Request.Body)
					if err != nil {
						return err
					}
					e.Response.Header().Add("Set-Cookie", "a=1")
					e.Response.Header().Add("Set-Cookie", "b=2")
					return e.JSON(http.StatusTeapot, map[string]any{"node": c.configs[i].Node, "body": fmt.Sprintf("%x", sha256.Sum256(body)), "host": e.Request.Host,
						"uri": e.Request.RequestURI, "from": e.Request.RemoteAddr, "tls": e.Request.TLS != nil, "header": e.Request.Header})
				}).Unbind(apis.DefaultBodyLimitMiddlewareId)
				e.Router.POST("/limited", func(e *core.RequestEvent) error {
					if _, err := io.Copy(io.Discard, e.Request.Body); err != nil {
						return err
					}
					return e.NoContent(http.StatusTeapot)
				}).Bind(apis.BodyLimit(2 * repeatable))
				e.Router.POST("/stands-still", func(e *core.RequestEvent) error {
					c.standing.Store(true)
					<-e.Request.Context().Done()
					return nil
				})
				return e.Next()
			})
			c.nodes[i], c.dbs[i] = node, newDB(node, c.paths[i])
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	token := apptest.SuperuserToken(t, apps[c.leader(t)])
	apptest.Eventually(t, "all nodes know whose token that is", func() bool {
		positions := c.positions(t)
		return positions[0] == positions[len(positions)-1]
	})
	for i, app := range apps {
		clients[i] = &client{Server: apptest.Serve(t, app), token: token}
	}
	return apps, clients
}

// Several apps start together on an empty database, and each takes writes, which it has once they are answered.
func TestEveryNodeTakesWrites(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	apps, clients := c.apps(t)
	clients[0].call(t, "PATCH", "/api/settings", `{"meta":{"appName":"of all nodes"},"batch":{"enabled":true,"maxRequests":50,"timeout":30}}`)
	if got := apps[0].Settings().Meta.AppName; got != "of all nodes" {
		t.Errorf("got %q", got)
	}
	clients[1].call(t, "POST", "/api/collections", `{"name":"posts","type":"base","fields":[{"name":"title","type":"text"}]}`)
	for i := range 30 {
		at := clients[i%3]
		id := fmt.Sprintf("post%011d", i)
		at.call(t, "POST", posts, fmt.Sprintf(`{"id":%q,"title":"one"}`, id))
		at.call(t, "PATCH", posts+"/"+id, `{"title":"two"}`)
		if got := at.call(t, "GET", posts+"/"+id, ""); !strings.Contains(got, `"title":"two"`) {
			t.Errorf("got %s", got)
		}
	}
	clients[2].call(t, "POST", "/api/batch", `{"requests":[{"method":"POST","url":"/api/collections/posts/records","body":{"title":"four"}}]}`)
	clients[0].sql(t, "DELETE FROM posts WHERE title = 'four'")
	if got := clients[1].status(t, "POST", posts, `{"id":"post00000000001"}`); got != http.StatusBadRequest {
		t.Errorf("got %d", got)
	}
	c.same(t)
	if n, err := apps[2].CountRecords("posts"); err != nil || n != 30 {
		t.Errorf("%d posts, %v", n, err)
	}
}

// What is passed on to the node that leads is as it came, and so is the answer.
func TestRequestIsPassedOnAsItCame(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	leader := c.leader(t)
	follower, _ := others(leader)
	for _, size := range []int{0, 10, repeatable, repeatable + 1, 20 << 20} {
		body := make([]byte, size)
		rand.NewChaCha8([32]byte{}).Read(body)
		request := clients[follower].request(t, "POST", "/echo?a=%2F&b=;c", string(body))
		request.Host = "app.example.com"
		request.Header.Set("X-Forwarded-For", "1.2.3.4")
		request.Header.Set("Replica-Client", "6.6.6.6:6") // as no client may say
		request.Header.Set("Idempotency-Key", "7")
		if size == 10 {
			request.ContentLength = -1
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Node, Body, Host, Uri, From string
			TLS                         bool
			Header                      http.Header
		}
		err = json.NewDecoder(response.Body).Decode(&got)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusTeapot || got.Node != c.configs[leader].Node || got.Body != fmt.Sprintf("%x", sha256.Sum256(body)) ||
			got.Host != "app.example.com" || got.Uri != "/echo?a=%2F&b=;c" || got.TLS || !strings.HasPrefix(got.From, "127.0.0.1:") ||
			fmt.Sprint(got.Header["X-Forwarded-For"]) != "[1.2.3.4]" || got.Header.Get(clientHeader) != "" || got.Header.Get("Authorization") == "" || got.Header.Get("Idempotency-Key") != "7" {
			t.Errorf("%d bytes: %v, %s, %+v", size, err, response.Status, got)
		}
		if fmt.Sprint(response.Header["Set-Cookie"]) != "[a=1 b=2]" || len(response.Header[positionHeader]) != 1 {
			t.Errorf("got %v", response.Header)
		}
	}
}

// The status of an answer is that of the node that leads, also for a client that waits to be told to go on with its body, as curl
// does with a large one, and if not all of that is read.
func TestAnswerToAClientThatWaitsToGoOn(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	follower, _ := others(c.leader(t))
	large := strings.Repeat("a", 50<<20)
	for _, expect := range []string{"", "100-continue"} {
		for _, body := range []struct {
			content string
			length  int64 // that the client tells
			status  int
		}{{"a", 1, http.StatusTeapot}, {large, int64(len(large)), http.StatusRequestEntityTooLarge}, {large, -1, http.StatusRequestEntityTooLarge}} {
			request := clients[follower].request(t, "POST", "/limited", body.content)
			request.ContentLength = body.length
			request.Header.Set("Expect", expect)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != body.status {
				t.Errorf("a body of length %d, expecting %q: got %s", body.length, expect, response.Status)
			}
		}
	}
}

// A client whose address isn't known, as over a Unix socket, is answered by the node that leads too.
func TestRequestOfNoAddressIsPassedOn(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.apps(t)
	follower, _ := others(c.leader(t))
	request, answer := httptest.NewRequest("POST", "/echo", strings.NewReader("a")), httptest.NewRecorder()
	request.RemoteAddr = ""
	(*c.nodes[follower].peer.handler.Load()).ServeHTTP(answer, request)
	if answer.Code != http.StatusTeapot {
		t.Errorf("got %d %s", answer.Code, answer.Body)
	}
}

// Cron jobs run on the node that leads, but for those of each node, and so do backups by a schedule.
func TestJobsRunOnTheNodeThatLeads(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.register = func(_ core.App, node *Node) { node.LocalJob("local") }
	apps, _ := c.apps(t)
	leader := c.leader(t)
	var want, got []string
	for i, app := range apps {
		name := c.configs[i].Node
		for _, job := range app.Cron().Jobs() {
			job.Run()
		}
		want = append(want, name+" local")
		if i == leader {
			want = append(want, name+" job")
		}
		backup := autoBackupPrefix + name + ".zip"
		if err := app.CreateBackup(t.Context(), backup); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(app.DataDir(), core.LocalBackupsDirName, backup)); (err == nil) != (i == leader) {
			t.Errorf("%s: %v", backup, err)
		}
	}
	for _, ran := range c.ran {
		got = append(got, *ran...)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A request waits for a node that leads, when the one that did is gone.
func TestRequestWaitsForANodeThatLeads(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	clients[0].call(t, "POST", "/api/collections", `{"name":"posts","type":"base","fields":[{"name":"title","type":"text"}]}`)
	c.same(t)
	leader := c.leader(t)
	a, b := others(leader)
	c.stop(t, leader)
	apptest.Eventually(t, "a write is taken", func() bool { return clients[a].status(t, "POST", posts, `{"title":"a"}`) == http.StatusOK })
	apptest.Eventually(t, "a write is taken", func() bool { return clients[b].status(t, "POST", posts, `{"title":"b"}`) == http.StatusOK })
	c.same(t)
	if got := clients[a].status(t, "GET", "/api/health", ""); got != http.StatusOK {
		t.Errorf("got %d", got)
	}
	left := c.leader(t)
	last := a + b - left
	c.stop(t, left)
	mustBeUnavailable(t, "a write without most of the nodes", clients[last].request(t, "POST", posts, `{"title":"c"}`))
	clients[last].call(t, "GET", posts, "")
	apptest.Eventually(t, "the node says that it is alone", func() bool {
		return clients[last].status(t, "GET", "/api/health", "") == http.StatusServiceUnavailable
	})
}

// What changes nothing is answered at once by a node that has all of the log since it started.
func TestAnswerThatChangedNothingIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	follower, _ := others(c.leader(t))
	c.stop(t, follower)
	c.start(t, follower)
	leader := c.nodes[c.leader(t)]
	apptest.Eventually(t, "it knows that it has what the leader has", func() bool {
		return leader.reached.at() > 0 && c.nodes[follower].reached.at() == leader.reached.at()
	})
}

// A request that was passed on to a node which leads no more, and answers nothing, is answered.
func TestRequestIsNotLostWithANodeThatStandsStill(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	leader := c.leader(t)
	follower, other := others(leader)
	request := clients[follower].request(t, "POST", "/stands-still", "")
	answered := make(chan *http.Response, 1)
	go func() {
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Error(err)
		} else {
			response.Body.Close()
		}
		answered <- response
	}()
	apptest.Eventually(t, "the request is passed on", c.standing.Load)
	c.makeLead(t, other)
	if response := <-answered; response == nil || response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("got %+v", response)
	}
}

// A page of another origin is told what a node answers that can't pass on.
func TestAnswersOfAFollowerAreForOtherOrigins(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	leader := c.leader(t)
	follower, other := others(leader)
	request := clients[follower].request(t, "POST", "/echo", "")
	request.Header.Set("Origin", "https://example.com")
	ask := func() *http.Response {
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response
	}
	if got := ask(); got.StatusCode != http.StatusTeapot || fmt.Sprint(got.Header["Access-Control-Allow-Origin"]) != "[*]" {
		t.Errorf("got %s, %v", got.Status, got.Header)
	}
	c.stop(t, leader)
	c.stop(t, other)
	if got := ask(); got.StatusCode != http.StatusServiceUnavailable || fmt.Sprint(got.Header["Access-Control-Allow-Origin"]) != "[*]" {
		t.Errorf("got %s, %v", got.Status, got.Header)
	}
}

// A request that a node may have done before it died is not passed on again, whatever headers it has.
func TestRequestIsPassedOnOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	config, err := c.configs[0].check()
	if err != nil {
		t.Fatal(err)
	}
	certs, err := loadCerts(config.Certs)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		conn, err := listener.Accept()
		listener.Close()
		if err != nil {
			return
		}
		defer conn.Close()
		secure := tls.Server(conn, certs)
		reader := bufio.NewReader(secure)
		for i := range 2 {
			if _, err := http.ReadRequest(reader); err != nil {
				return
			}
			if i == 0 {
				io.WriteString(secure, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		}
		conn.(*net.TCPConn).SetLinger(0) // as one that is killed
	}()
	node := &Node{log: newStreamLog(config, slog.Default)}
	if node.peer, err = newPeer(config); err != nil {
		t.Fatal(err)
	}
	if err := node.peer.serve(func(w http.ResponseWriter, r *http.Request) { node.servePeer("", w, r) }, slog.Default); err != nil {
		t.Fatal(err)
	}
	defer node.peer.close()
	var done bool
	for range 2 {
		e := &core.RequestEvent{}
		e.Request, e.Response = httptest.NewRequest("POST", "/", nil), httptest.NewRecorder()
		e.Request.Header.Set("Idempotency-Key", "1")
		done, err = node.passTo(e, listener.Addr().String(), body{}, true)
	}
	if done || err == nil {
		t.Errorf("got %t, %v", done, err)
	}
}

// A request is answered that comes while its app terminates, whose node is closed.
func TestRequestToANodeThatIsClosed(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	leader := c.leader(t)
	a, b := others(leader)
	for _, i := range []int{b, leader, a} {
		c.stop(t, i)
	}
	mustBeUnavailable(t, "a write", clients[a].request(t, "POST", "/echo", ""))
}
