package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/pocketriver/pocketriver/hooks"
	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// withPlugin has each app take the plugin, whose fan-out sends some of the events.
func (c *cluster) withPlugin() {
	c.register = func(app core.App, node *Node) {
		hooks.MustRegister(app, nil, hooks.Config{
			WebhookSecrets: []string{"secret"}, Node: node,
		})
	}
}

func filtered(topic, filter string) string {
	options, _ := json.Marshal(map[string]any{"query": map[string]string{"filter": filter}})
	separator := "?"
	if strings.Contains(topic, "?") {
		separator = "&"
	}
	return topic + separator + "options=" + url.QueryEscape(string(options))
}

// changesOf returns those of the events that tell of records.
func changesOf(events []string) []string {
	return slices.DeleteFunc(events, func(event string) bool {
		return strings.Contains(event, `"action":"live"`) || strings.Contains(event, `"action":"alive"`) || strings.Contains(event, `"action":"unidentified"`)
	})
}

// What viewers are sent is the same at each node, of PocketBase's broadcast and of the fan-out, whatever node the
// changes come to and whatever rules, filters and signing in have to do with it.
func TestViewersOfEveryNodeAreSentTheSame(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.withPlugin()
	apps, clients := c.apps(t)
	root := clients[c.leader(t)]
	root.call(t, "PATCH", "/api/settings", `{"batch":{"enabled":true,"maxRequests":50,"timeout":30}}`)
	root.call(t, "POST", "/api/collections", `{"name":"posts","type":"base","fields":[{"name":"title","type":"text"},{"name":"open","type":"bool"},{"name":"secret","type":"text","hidden":true},
		{"name":"owner","type":"relation","collectionId":"_pb_users_auth_","maxSelect":1}],"listRule":"open = true || owner = @request.auth.id","viewRule":"open = true"}`)
	root.call(t, "PATCH", "/api/collections/aiContent", `{"listRule":"userId = '' || userId = @request.auth.id","viewRule":"userId = ''"}`)
	ann, annToken := apptest.NewUser(t, apps[c.leader(t)], "ann@example.com")
	bob, bobToken := apptest.NewUser(t, apps[c.leader(t)], "bob@example.com")
	c.settle(t)

	one := "record000000001"
	viewers := []struct {
		name, token string
		ordered     bool // as PocketBase's own events are not
		topics      []string
	}{
		{"a guest", "", false, []string{"posts/*", "posts/" + one, "posts"}},
		{"ann", annToken, false, []string{filtered("posts/*", "title != '3'"), `posts/*?options={"query":{"expand":"owner","fields":"title,expand"}}`, "users/" + ann.Id}},
		{"bob", bobToken, false, []string{"posts/*"}},
		{"a superuser", root.token, false, []string{"posts/*", "_superusers/*", "users/*", `aiContent/*?options={"query":{"fields":"title"}}`}},
		{"a guest of content", "", true, []string{"aiContent/*?leave=1"}},
		{"ann of content", annToken, true, []string{filtered("aiContent/*?leave=1", "title != '3'")}},
		{"ann of content and one record", annToken, true, []string{"aiContent/*", "aiContent/" + one}},
		{"a superuser of content", root.token, true, []string{"aiContent/*?leave=1"}},
	}
	streams := make([][3]*apptest.Stream, len(viewers))
	got := make([][3][]string, len(viewers))
	for i, v := range viewers {
		for n := range clients {
			streams[i][n] = clients[n].Subscribe(t, v.token, v.topics...)
		}
	}

	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	there := map[string]bool{}
	step := func(collection string) (method, path, body string) {
		id := fmt.Sprintf("record%09d", random.IntN(6))
		path = "/api/collections/" + collection + "/records"
		switch key := collection + id; {
		case !there[key]:
			there[key], method = true, "POST"
		case random.IntN(4) == 0:
			there[key] = false
			return "DELETE", path + "/" + id, ""
		default:
			method, path = "PATCH", path+"/"+id
		}
		who := pick(`""`, `"`+ann.Id+`"`, `"`+bob.Id+`"`)
		if collection == "posts" {
			return method, path, fmt.Sprintf(`{"id":%q,"title":"%d","secret":"%d","open":%s,"owner":%s}`, id, random.IntN(5), random.IntN(9), pick("true", "false"), who)
		}
		return method, path, fmt.Sprintf(`{"id":%q,"title":"%d","userId":%s,"channelId":"c%s"}`, id, random.IntN(5), who, id)
	}
	for i := range 60 {
		at := clients[random.IntN(3)]
		collection := []string{"posts", "aiContent"}[i%2]
		if i%10 == 9 { // several records at once
			var requests []string
			for _, collection := range []string{"posts", "aiContent"} {
				method, path, body := step(collection)
				if body == "" {
					body = "{}"
				}
				requests = append(requests, fmt.Sprintf(`{"method":%q,"url":%q,"body":%s}`, method, path, body))
			}
			at.call(t, "POST", "/api/batch", `{"requests":[`+strings.Join(requests, ",")+`]}`)
			continue
		}
		method, path, body := step(collection)
		at.call(t, method, path, body)
		if i == 30 {
			root.call(t, "PATCH", "/api/collections/posts", `{"listRule":"owner = @request.auth.id"}`)
		}
		if i == 50 { // and all users'
			root.call(t, "PATCH", "/api/collections/users", `{"authToken":{"secret":"`+strings.Repeat("another", 8)+`"}}`)
		}
		if i == 45 { // ends what her streams know of her
			root.call(t, "PATCH", "/api/collections/users/records/"+ann.Id, `{"password":"another password","passwordConfirm":"another password"}`)
		}
	}
	root.call(t, "PATCH", "/api/collections/posts", `{"listRule":""}`)
	for _, collection := range []string{"posts", "aiContent"} {
		clients[1].call(t, "POST", "/api/collections/"+collection+"/records", `{"title":"end","channelId":"end"}`)
	}

	for i, v := range viewers {
		apptest.Eventually(t, v.name+" is sent the end, and at each node the same", func() bool {
			for n := range clients {
				got[i][n] = append(got[i][n], changesOf(streams[i][n].Take())...)
				if !v.ordered {
					slices.Sort(got[i][n])
				}
			}
			ends := func(events []string) bool {
				return slices.ContainsFunc(events, func(event string) bool { return strings.Contains(event, `"title":"end"`) })
			}
			if t.Failed() || !ends(got[i][0]) || !ends(got[i][1]) || !ends(got[i][2]) {
				return t.Failed()
			}
			return slices.Equal(got[i][0], got[i][1]) && slices.Equal(got[i][0], got[i][2])
		})
		t.Logf("%s: %d events", v.name, len(got[i][0]))
	}
}

// settle waits until all nodes have what was written.
func (c *cluster) settle(t testing.TB) {
	t.Helper()
	leader := c.nodes[c.leader(t)]
	apptest.Eventually(t, "all nodes have the same", func() bool {
		return !slices.ContainsFunc(c.nodes[:], func(n *Node) bool { return n.reached.at() != leader.reached.at() })
	})
}

// A request about a stream of events is answered by the node that has the stream, whatever node it comes to.
func TestStreamIsFoundFromEveryNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	clients[0].call(t, "POST", "/api/collections", `{"name":"posts","type":"base","fields":[{"name":"title","type":"text"}],"listRule":""}`)
	c.settle(t)
	for at := range clients {
		stream := clients[at].Connect(t)
		for _, other := range clients {
			if status := other.SetTopics(t, stream.ID, "", "posts/*", "@oauth2"); status != http.StatusNoContent {
				t.Errorf("got %d", status)
			}
		}
		clients[(at+1)%3].call(t, "POST", posts, `{"title":"one"}`)
		mustHear(t, stream, `"title":"one"`)
		// Whoever has signed in at a provider comes to any node, and the page that waits is told.
		response, err := http.DefaultClient.Get(clients[(at+2)%3].URL + "/api/oauth2-redirect?code=7&state=" + stream.ID)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if !strings.Contains(response.Request.URL.String(), "success") {
			t.Errorf("got %s", response.Request.URL)
		}
		mustHear(t, stream, `"code":"7"`)
		if status := clients[at].SetTopics(t, "nobodys", "", "posts/*"); status != http.StatusNotFound {
			t.Errorf("got %d", status)
		}
	}
}

// Who signs in to a stream, at a node that doesn't know the user yet, is known by it once it does.
func TestStreamIsSignedInToAtANodeThatLags(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	apps, clients := c.apps(t)
	leader := c.leader(t)
	follower, _ := others(leader)
	clients[leader].call(t, "POST", "/api/collections", `{"name":"posts","type":"base","fields":[{"name":"title","type":"text"}],"listRule":"@request.auth.id != ''"}`)
	c.settle(t)
	stream := clients[follower].Connect(t)
	release := c.hold(t, follower)
	_, token := apptest.NewUser(t, apps[leader], "ann@example.com")
	answered := make(chan int)
	go func() { answered <- clients[leader].SetTopics(t, stream.ID, token, "posts/*") }()
	select {
	case status := <-answered:
		t.Errorf("answered %d by a node that doesn't know her", status)
		answered = make(chan int, 1)
		answered <- status
	case <-time.After(100 * time.Millisecond):
	}
	release()
	if status := <-answered; status != http.StatusNoContent {
		t.Errorf("got %d", status)
	}
	clients[leader].call(t, "POST", posts, `{"title":"one"}`)
	mustHear(t, stream, `"title":"one"`)
}

func mustHear(t *testing.T, stream *apptest.Stream, part string) {
	t.Helper()
	apptest.Eventually(t, "the stream is sent "+part, func() bool {
		return slices.ContainsFunc(stream.Take(), func(event string) bool { return strings.Contains(event, part) })
	})
}

// hold keeps the database of a node from being written to, until the returned function is called.
func (c *cluster) hold(t *testing.T, i int) (release func()) {
	t.Helper()
	a, err := newApplier(c.paths[i])
	if err == nil {
		err = a.exec(t.Context(), "BEGIN IMMEDIATE")
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(a.exec(t.Context(), "ROLLBACK"), a.close()); err != nil {
			t.Error(err)
		}
	}
}

// awaitApplying waits until a node that is held is applying a change.
func (c *cluster) awaitApplying(t *testing.T, i int) {
	t.Helper()
	busy := 0 // looks in a row, as what changes nothing takes no time
	apptest.Eventually(t, "the change is being applied", func() bool {
		busy++
		if c.nodes[i].mu.TryLock() {
			c.nodes[i].mu.Unlock()
			busy = 0
		}
		return busy == 20
	})
}

// Who has seen something at one node isn't shown less at another one: that waits until it has as much, but not for ever.
func TestReadsDoNotGoBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	leader := c.leader(t)
	follower, _ := others(leader)
	clients[leader].call(t, "POST", "/api/collections", `{"name":"posts","type":"base","fields":[{"name":"title","type":"text"}],"listRule":""}`)
	c.settle(t)
	release := c.hold(t, follower)
	write := func(at int, body string) (position string) {
		response, err := http.DefaultClient.Do(clients[at].request(t, "POST", posts, body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Fatalf("got %s", response.Status)
		}
		return response.Header.Get(positionHeader)
	}
	before := write(leader, `{"title":"one"}`)
	list := func(at int, position string) (status int, body, is string) {
		request := clients[at].request(t, "GET", posts, "")
		request.Header.Set(positionHeader, position)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(response.Header["Access-Control-Expose-Headers"], positionHeader) {
			t.Errorf("other origins can't read it: %v", response.Header)
		}
		return response.StatusCode, string(answer), response.Header.Get(positionHeader)
	}
	_, body, position := list(leader, "")
	if !strings.Contains(body, "one") || position != before {
		t.Errorf("at %s, as it was written at %s: %s", position, before, body)
	}
	for _, nothing := range []string{"", "another-9999999", "9999999", position + "x"} {
		if status, body, is := list(follower, nothing); status != http.StatusOK || strings.Contains(body, "one") || is == position {
			t.Errorf("after %q: %d, %s", nothing, status, body)
		}
	}
	mustBeUnavailable(t, "a list", func() *http.Request {
		request := clients[follower].request(t, "GET", posts, "")
		request.Header.Set(positionHeader, position)
		return request
	}())
	position = write(follower, `{"title":"two"}`) // which waits for it, and not for ever
	if status, body, _ := list(leader, position); !strings.Contains(body, "two") || position != c.nodes[leader].Position() {
		t.Errorf("after %s: %d, %s", position, status, body)
	}
	answered := make(chan int)
	go func() { // as EventSource asks, which sets no header
		response, err := http.DefaultClient.Get(clients[follower].URL + "/api/realtime?" + positionQuery + "=" + url.QueryEscape(position))
		if err != nil {
			answered <- 0
			return
		}
		response.Body.Close()
		answered <- response.StatusCode
	}()
	select {
	case status := <-answered:
		t.Errorf("a stream began with less: %d", status)
	case <-time.After(100 * time.Millisecond):
	}
	release()
	if status := <-answered; status != http.StatusOK {
		t.Errorf("got %d", status)
	}
	if status, body, _ := list(follower, position); status != http.StatusOK || !strings.Contains(body, "two") {
		t.Errorf("got %d, %s", status, body)
	}
}

// Where a change can't be told, streams end, so that whoever has one fetches again.
func TestStreamsEndThatCannotBeTold(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.withPlugin()
	apps, clients := c.apps(t)
	leader := c.leader(t)
	follower, _ := others(leader)
	clients[leader].call(t, "POST", "/api/collections", `{"name":"posts","type":"base","fields":[{"name":"title","type":"text"}],"listRule":""}`)
	c.settle(t)

	t.Log("who comes while a change is applied that nobody was there for")
	apptest.Eventually(t, "nobody is heard", func() bool {
		c.nodes[follower].listened.at.Store(0)
		return !c.nodes[follower].isHeard()
	})
	const topic = "aiContent/*?leave=1"
	release := c.hold(t, follower)
	clients[leader].call(t, "POST", posts, `{"title":"one"}`)
	c.awaitApplying(t, follower)
	stream, lost := clients[follower].Subscribe(t, "", "posts/*"), clients[follower].Subscribe(t, "", topic)
	apptest.Eventually(t, "there is something to come back to", func() bool { return lost.LastEventID() != "" })
	lost.Close()
	apptest.Eventually(t, "it is lost", func() bool { return apps[follower].SubscriptionsBroker().TotalClients() == 1 })
	release()
	mustEnd(t, stream)
	lost = clients[follower].ConnectAfter(t, lost.LastEventID())
	if status := clients[follower].SetTopics(t, lost.ID, "", topic); status != http.StatusNoContent {
		t.Errorf("got %d", status)
	}
	if says := <-lost.Events; strings.Contains(says, `"continued":true`) { // before the other one is forgotten
		mustEnd(t, lost)
	}

	t.Log("many rows")
	stream = clients[follower].Subscribe(t, "", "posts/*")
	clients[leader].sql(t, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1001) INSERT INTO posts (id, title) SELECT printf('many%011d', i), 'many' FROM n")
	mustEnd(t, stream)

	t.Log("rows and their schema")
	stream = clients[follower].Subscribe(t, "", "posts/*")
	err := apps[leader].RunInTransaction(func(tx core.App) error {
		posts, err := tx.FindCollectionByNameOrId("posts")
		if err != nil {
			return err
		}
		posts.Fields.Add(&core.TextField{Name: "more"})
		if err := tx.Save(posts); err != nil {
			return err
		}
		return tx.Save(core.NewRecord(posts))
	})
	if err != nil {
		t.Fatal(err)
	}
	mustEnd(t, stream)

	t.Log("rows, and the rules by which they are shown")
	stream = clients[follower].Subscribe(t, "", "posts/*")
	err = apps[leader].RunInTransaction(func(tx core.App) error {
		posts, err := tx.FindCollectionByNameOrId("posts")
		if err != nil {
			return err
		}
		posts.ListRule = nil
		record := core.NewRecord(posts)
		record.Set("title", "secret")
		return errors.Join(tx.Save(posts), tx.Save(record))
	})
	if err != nil {
		t.Fatal(err)
	}
	mustEnd(t, stream)
	if told := stream.Take(); len(told) > 0 {
		t.Errorf("a guest is told %s", told)
	}
	clients[leader].call(t, "PATCH", "/api/collections/posts", `{"listRule":""}`)
	c.settle(t)

	t.Log("whoever has lost a stream, and comes back to it")
	stream = clients[follower].Subscribe(t, "", topic)
	apptest.Eventually(t, "there is something to come back to", func() bool { return stream.LastEventID() != "" })
	stream.Close()
	apptest.Eventually(t, "it is lost", func() bool { return apps[follower].SubscriptionsBroker().TotalClients() == 0 })
	clients[leader].sql(t, "UPDATE posts SET title = 'many more'")
	c.settle(t)
	stream = clients[follower].ConnectAfter(t, stream.LastEventID())
	if status := clients[follower].SetTopics(t, stream.ID, "", topic); status != http.StatusNoContent {
		t.Errorf("got %d", status)
	}
	if says := <-stream.Events; strings.Contains(says, `"continued":true`) { // before the other one is forgotten
		mustEnd(t, stream)
	}

	t.Log("a rule, to who counts on being told what leaves")
	plain := clients[follower].Subscribe(t, "", "posts/*")
	stream = clients[follower].Subscribe(t, "", topic)
	clients[leader].call(t, "PATCH", "/api/collections/aiContent", `{"listRule":null}`)
	mustEnd(t, stream)
	clients[leader].call(t, "POST", posts, `{"title":"goes on"}`)
	mustHear(t, plain, `"title":"goes on"`)

	t.Log("a node that hears of no node that leads")
	other, _ := others(follower)
	if other == leader {
		_, other = others(follower)
	}
	c.stop(t, other)
	c.stop(t, leader)
	mustEnd(t, plain)
	mustBeUnavailable(t, "a stream", clients[follower].request(t, "GET", "/api/realtime", ""))
	if status := clients[follower].status(t, "GET", posts, ""); status != http.StatusOK {
		t.Errorf("reads are answered %d", status)
	}
}

// A node that led has its streams go on as long as any other that hears of no node that leads.
func TestStreamsGoOnAtANodeThatLed(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	leader := c.leader(t)
	stream := clients[leader].Subscribe(t, "", "posts/*")
	c.nodes[leader].heard.at.Store(0) // as if it had begun to lead long ago
	apptest.Eventually(t, "it knows that a node leads", func() bool { return c.nodes[leader].heard.ago() < staleTimeout })
	a, b := others(leader)
	c.stop(t, a)
	c.stop(t, b)
	apptest.Eventually(t, "it leads no more", func() bool { return !c.nodes[leader].Leads() })
	began := time.Now()
	mustEnd(t, stream)
	if took := time.Since(began); took < staleTimeout/2 {
		t.Errorf("it has ended after %s", took)
	}
}

func mustEnd(t *testing.T, stream *apptest.Stream) {
	t.Helper()
	select {
	case <-stream.Ended:
	case <-time.After(time.Minute):
		t.Fatal("the stream goes on")
	}
}

// Who comes while a change is applied, and is the first, is told of the row that leaves its list.
func TestFirstViewerIsToldWhatLeaves(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.withPlugin()
	_, clients := c.apps(t)
	leader := c.leader(t)
	follower, _ := others(leader)
	clients[leader].call(t, "PATCH", "/api/collections/aiContent", `{"listRule":""}`)
	clients[leader].call(t, "POST", "/api/collections/aiContent/records", `{"id":"record000000001","title":"in","channelId":"c"}`)
	c.settle(t)
	clients[follower].Connect(t) // without it nothing is told
	release := c.hold(t, follower)
	clients[leader].call(t, "PATCH", "/api/collections/aiContent/records/record000000001", `{"title":"out"}`)
	c.awaitApplying(t, follower)
	stream := clients[follower].Subscribe(t, "", filtered("aiContent/*?leave=1", "title = 'in'"))
	release()
	mustHear(t, stream, `"action":"leave"`)
}

// Garbage may be collected while a change is applied: what its row was is known still.
func TestGarbageIsCollectedWhileAChangeIsApplied(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.withPlugin()
	withPlugin := c.register
	c.register = func(app core.App, node *Node) {
		withPlugin(app, node)
		for _, behind := range []*hook.TaggedHook[*core.ModelEvent]{
			node.Applied().OnModelAfterUpdateSuccess("aiContent"), node.Applied().OnModelAfterDeleteSuccess("aiContent"),
		} {
			behind.Bind(&hook.Handler[*core.ModelEvent]{Priority: -1000, Func: func(e *core.ModelEvent) error {
				collected := make(chan struct{})
				runtime.AddCleanup(new([64]byte), func(c chan struct{}) { close(c) }, collected)
				for range 3 {
					runtime.GC()
				}
				<-collected
				return e.Next()
			}})
		}
	}
	_, clients := c.apps(t)
	leader := c.leader(t)
	follower, _ := others(leader)
	clients[leader].call(t, "PATCH", "/api/collections/aiContent", `{"listRule":"userId = ''"}`)
	for _, id := range []string{"record000000001", "record000000002"} {
		clients[leader].call(t, "POST", "/api/collections/aiContent/records", `{"id":"`+id+`","title":"in","channelId":"`+id+`"}`)
	}
	c.settle(t)
	stream := clients[follower].Subscribe(t, "", "aiContent/*?leave=1")
	clients[leader].call(t, "PATCH", "/api/collections/aiContent/records/record000000001", `{"userId":"somebody"}`)
	clients[leader].call(t, "DELETE", "/api/collections/aiContent/records/record000000002", "")
	clients[leader].call(t, "POST", "/api/collections/aiContent/records", `{"title":"end","channelId":"end"}`)
	var got []string
	apptest.Eventually(t, "the end is told", func() bool {
		got = append(got, changesOf(stream.Take())...)
		return len(got) > 0 && strings.Contains(got[len(got)-1], `"title":"end"`)
	})
	if len(got) != 3 || !strings.Contains(got[0], `"leave"`) || !strings.Contains(got[1], `"delete"`) {
		t.Errorf("got %s, want what left, and what was deleted", strings.Join(got, "\n"))
	}
}

// A node that couldn't read collections or settings again is where the log is once it could.
func TestNodeGoesOnOnceItCouldReload(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	apps, clients := c.apps(t)
	leader := c.leader(t)
	follower, _ := others(leader)
	c.settle(t)
	var failed atomic.Bool
	apps[follower].OnSettingsReload().BindFunc(func(e *core.SettingsReloadEvent) error {
		if !failed.Swap(true) {
			return errors.New("it fails")
		}
		return e.Next()
	})
	clients[leader].call(t, "PATCH", "/api/settings", `{"meta":{"appName":"another"}}`)
	c.settle(t)
	if name := apps[follower].Settings().Meta.AppName; name != "another" || !failed.Load() {
		t.Errorf("got %s", name)
	}
}

// The hooks of the app itself run on the node that leads alone.
func TestHooksRunOnTheNodeThatLeads(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	var ran atomic.Int32
	c.register = func(app core.App, _ *Node) {
		app.OnRecordAfterCreateSuccess("posts").BindFunc(func(e *core.RecordEvent) error {
			ran.Add(1)
			return e.Next()
		})
	}
	_, clients := c.apps(t)
	clients[0].call(t, "POST", "/api/collections", `{"name":"posts","type":"base","fields":[{"name":"title","type":"text"}],"listRule":""}`)
	c.settle(t)
	var streams []*apptest.Stream
	for _, client := range clients {
		streams = append(streams, client.Subscribe(t, "", "posts/*"))
	}
	clients[1].call(t, "POST", posts, `{"title":"one"}`)
	for _, stream := range streams {
		mustHear(t, stream, `"title":"one"`)
	}
	if n := ran.Load(); n != 1 {
		t.Errorf("ran %d times", n)
	}
}
