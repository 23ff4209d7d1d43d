// Package apptest is what tests of several packages share: a PocketBase app behind a real
// HTTP server, and streams of its realtime events.
package apptest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"
)

// Main runs the tests of a package four at a time, unless told otherwise: they wait more than they compute.
func Main(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("4"); err != nil {
			panic(err)
		}
	}
	m.Run()
}

// fresh are the databases of an app with every migration applied, by the names of their files:
// to apply them takes most of the time of making an app.
var fresh = sync.OnceValues(func() (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	app, err := tests.NewTestApp(dir) // on a copy
	if err != nil {
		return nil, err
	}
	defer app.Cleanup()
	for _, name := range []string{"users", core.CollectionNameSuperusers} {
		c, err := app.FindCollectionByNameOrId(name)
		if err != nil {
			return nil, err
		}
		c.Fields.GetByName(core.FieldNamePassword).(*core.PasswordField).Cost = 4 // the least: tests hash many
		if err := app.Save(c); err != nil {
			return nil, err
		}
	}
	if err := app.ResetBootstrapState(); err != nil { // so that the files are complete
		return nil, err
	}
	files := map[string][]byte{"data.db": nil, "auxiliary.db": nil}
	for name := range files {
		if files[name], err = os.ReadFile(filepath.Join(app.DataDir(), name)); err != nil {
			return nil, err
		}
	}
	return files, nil
})

// NewApp returns an app on an empty data directory, not serving.
func NewApp(t testing.TB) *tests.TestApp {
	t.Helper()
	return NewAppConnected(t, nil)
}

// NewAppConnected is [NewApp] with another way to open its databases.
func NewAppConnected(t testing.TB, connect core.DBConnectFunc) *tests.TestApp {
	t.Helper()
	files, err := fresh()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	app, err := tests.NewTestAppWithConfig(core.BaseAppConfig{DataDir: dir, EncryptionEnv: "pb_test_env", DBConnect: connect})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(app.Cleanup)
	app.OnRecordEnrich().UnbindAll() // the test app's own, which would turn the fan-out off
	return app
}

// A Server is an app that serves, over HTTP/1.1 and HTTP/2, on a free port.
type Server struct {
	*tests.TestApp
	URL string

	// Client is what streams are read with. Defaults to [http.DefaultClient].
	Client *http.Client
}

// Serve does what PocketBase's serve command does. It ends with the test.
func Serve(t testing.TB, app *tests.TestApp) *Server {
	t.Helper()
	router, err := apis.NewRouter(app)
	if err != nil {
		t.Fatal(err)
	}
	event := &core.ServeEvent{App: app, Router: router, Server: new(http.Server)}
	var server *httptest.Server
	err = app.OnServe().Trigger(event, func(e *core.ServeEvent) error {
		mux, err := e.Router.BuildMux()
		if err != nil {
			return err
		}
		e.Server.Handler = mux
		server = httptest.NewUnstartedServer(e.Server.Handler)
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP1(true)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.CloseClientConnections() // realtime streams
		server.Close()
	})
	return &Server{TestApp: app, URL: server.URL, Client: http.DefaultClient}
}

// OverEachProtocol runs a test of streams with a client over HTTP/1.1 and with one over
// HTTP/2, as browsers get it from "serve example.com".
func OverEachProtocol(t *testing.T, test func(t *testing.T, client *http.Client)) {
	for _, major := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", major), func(t *testing.T) {
			t.Parallel()
			test(t, Client(t, major))
		})
	}
}

// Client returns a client over HTTP/1.1 or HTTP/2.
func Client(t testing.TB, major int) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(major == 1)
	transport.Protocols.SetUnencryptedHTTP2(major == 2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// A Stream is one realtime connection.
type Stream struct {
	ID     string        // of the client, as PocketBase has it
	Events chan string   // the data of each event of the subscribed topics
	Ended  chan struct{} // closed when the connection is

	Close func() // ends the connection

	lastEventID atomic.Value
	lastOf      sync.Map // by topic
}

// LastEventID returns the id of the last event that has arrived, as EventSource names it
// when it connects again.
func (s *Stream) LastEventID() string {
	id, _ := s.lastEventID.Load().(string)
	return id
}

// LastEventIDOf is LastEventID for who listens to one topic only, as a browser does.
func (s *Stream) LastEventIDOf(topic string) string {
	id, _ := s.lastOf.Load(topic)
	text, _ := id.(string)
	return text
}

// Connect opens a stream without any topic.
func (s *Server) Connect(t testing.TB) *Stream {
	t.Helper()
	return s.ConnectAfter(t, "")
}

// ConnectAfter opens a stream that names the last event of the one before.
func (s *Server) ConnectAfter(t testing.TB, lastEventID string) *Stream {
	t.Helper()
	response, err := s.Client.Get(s.URL + "/api/realtime?lastEventId=" + url.QueryEscape(lastEventID))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })

	stream := &Stream{Close: func() { response.Body.Close() }, Events: make(chan string, 10_000), Ended: make(chan struct{})}
	id := make(chan string, 1)
	go func() {
		defer close(stream.Ended)
		scanner := bufio.NewScanner(response.Body)
		scanner.Buffer(nil, 64<<20)
		name, eventID := "", ""
		for scanner.Scan() {
			line := scanner.Text()
			if value, ok := strings.CutPrefix(line, "event:"); ok {
				name = value
			}
			if value, ok := strings.CutPrefix(line, "id:"); ok {
				eventID = value
			}
			if value, ok := strings.CutPrefix(line, "data:"); ok {
				if name == "PB_CONNECT" {
					id <- strings.Split(strings.SplitN(value, `"clientId":"`, 2)[1], `"`)[0]
				} else {
					stream.lastEventID.Store(eventID)
					stream.lastOf.Store(name, eventID)
					stream.Events <- value
				}
			}
		}
	}()
	stream.ID = <-id
	return stream
}

// Subscribe opens a stream as the user of the token, or as a guest.
func (s *Server) Subscribe(t testing.TB, token string, topics ...string) *Stream {
	t.Helper()
	stream := s.Connect(t)
	if status := s.SetTopics(t, stream.ID, token, topics...); status != http.StatusNoContent {
		t.Fatalf("subscribe: got %d", status)
	}
	return stream
}

// SetTopics sets the topics of a stream and returns the status of the answer.
func (s *Server) SetTopics(t testing.TB, id, token string, topics ...string) int {
	t.Helper()
	body, err := json.Marshal(map[string]any{"clientId": id, "subscriptions": topics})
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodPost, s.URL+"/api/realtime", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", token)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

// Take returns the events that have arrived since.
func (s *Stream) Take() []string {
	var taken []string
	for {
		select {
		case event := <-s.Events:
			taken = append(taken, event)
		default:
			return taken
		}
	}
}

// patience is how long anything may take to come about. It decides nothing but when a test that fails ends.
const patience = 3 * time.Minute

// Eventually waits until the condition holds.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("not within %s: %s", patience, what)
}

// NewUser adds a user and returns it with a token.
func NewUser(t testing.TB, app core.App, email string) (*core.Record, string) {
	t.Helper()
	return newAuth(t, app, "users", email)
}

// SuperuserToken adds a superuser and returns its token.
func SuperuserToken(t testing.TB, app core.App) string {
	t.Helper()
	_, token := newAuth(t, app, core.CollectionNameSuperusers, "root@example.com")
	return token
}

func newAuth(t testing.TB, app core.App, collection, email string) (*core.Record, string) {
	t.Helper()
	c, err := app.FindCollectionByNameOrId(collection)
	if err != nil {
		t.Fatal(err)
	}
	record := core.NewRecord(c)
	record.SetEmail(email)
	record.SetPassword("correct horse battery")
	if err := app.Save(record); err != nil {
		t.Fatal(err)
	}
	token, err := record.NewAuthToken()
	if err != nil {
		t.Fatal(err)
	}
	return record, token
}

// FreeAddress returns an address of this machine that nobody listens on.
func FreeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// A Buffer may be read while it is written.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *Buffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *Buffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
