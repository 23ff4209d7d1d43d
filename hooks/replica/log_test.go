package replica

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/pocketriver/pocketriver/hooks"
	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

const secret = "secret"

// webhook returns a signed webhook with content of its own, a number of bytes long.
func webhook(t testing.TB, url string, n, size int) *http.Request {
	t.Helper()
	payload := fmt.Appendf(nil, `{"type":"task.ai_generated","event":"new","channel_id":"channel-%d","ai_response":{"data":{"title":"title %d","body":%q}}}`, n, n, strings.Repeat("x", size))
	request, err := http.NewRequest("POST", url+"/webhooks/modelriver", strings.NewReader(string(payload)))
	if err != nil {
		t.Fatal(err)
	}
	if err := modelriver.Sign(request.Header, "body", secret, time.Now(), payload); err != nil {
		t.Fatal(err)
	}
	return request
}

// newServer returns a client of an app with the plugin, on the leader's database.
func (p *pair) newServer(t testing.TB) *client {
	t.Helper()
	app := p.newApp(t)
	hooks.MustRegister(app, nil, hooks.Config{WebhookSecrets: []string{secret}, APIKey: "key"})
	c := &client{Server: apptest.Serve(t, app), token: apptest.SuperuserToken(t, app)}
	c.call(t, "PATCH", "/api/settings", `{"batch":{"enabled":true,"maxRequests":50,"timeout":30}}`)
	c.call(t, "POST", "/api/collections", `{"id":"pbc_posts000001","name":"posts","type":"base","fields":[{"name":"title","type":"text"}]}`)
	c.call(t, "POST", posts, `{"id":"post00000000001","title":"one"}`)
	return c
}

// writes are requests that write, whatever route they take.
var writes = []struct{ name, method, path, body string }{
	{"create a record", "POST", posts, `{"title":"two"}`},
	{"update a record", "PATCH", posts + "/post00000000001", `{"title":"three"}`},
	{"delete a record", "DELETE", posts + "/post00000000001", ``},
	{"several requests as one", "POST", "/api/batch", `{"requests":[{"method":"POST","url":"/api/collections/posts/records","body":{"title":"four"}}]}`},
	{"create a collection", "POST", "/api/collections", `{"name":"more","type":"base"}`},
	{"update a collection", "PATCH", "/api/collections/posts", `{"listRule":""}`},
	{"delete a collection", "DELETE", "/api/collections/posts", ``},
	{"truncate a collection", "DELETE", "/api/collections/posts/truncate", ``},
	{"import collections", "PUT", "/api/collections/import", `{"collections":[{"name":"imported","type":"base"}]}`},
	{"settings", "PATCH", "/api/settings", `{"meta":{"appName":"other"}}`},
	{"the console", "POST", "/api/sql", `{"query":"DELETE FROM posts"}`},
	{"sign up", "POST", "/api/collections/users/records", `{"email":"u@example.com","password":"password1","passwordConfirm":"password1"}`},
}

// mustBeUnavailable fails unless the answer is 503 and says when to come again.
func mustBeUnavailable(t *testing.T, name string, request *http.Request) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("%s: got %s, Retry-After %q: %s", name, response.Status, response.Header.Get("Retry-After"), body)
	}
}

// While the log can't be written to, every write is answered 503 and changes nothing, every
// read is answered, and when it can, so are writes.
func TestLogThatIsDownIsAnswered503(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	c := p.newServer(t)
	p.same(t)
	before := fmt.Sprint(p.dump(t, p.path))

	log := p.leader.log
	log.mu.Lock()
	dir := log.dir
	log.dir = filepath.Join(dir, "lock", "no folder") // where it can't be opened again
	log.server.Shutdown()
	log.mu.Unlock()
	mustBeUnavailable(t, "a webhook", webhook(t, c.URL, 1, 10))
	for _, w := range writes {
		mustBeUnavailable(t, w.name, c.request(t, w.method, w.path, w.body))
	}
	c.call(t, "GET", posts, "")
	if after := fmt.Sprint(p.dump(t, p.path)); after != before {
		t.Errorf("something was written:\n%s\n%s", before, after)
	}

	log.mu.Lock()
	log.dir = dir
	log.mu.Unlock()
	awaitReady(t, p.leader)
	for _, w := range []int{0, 1, 3, 4, 8, 9, 11} {
		c.call(t, writes[w].method, writes[w].path, writes[w].body)
	}
	post(t, webhook(t, c.URL, 1, 10))
	p.same(t)
}

// post sends a webhook, which must be acknowledged.
func post(t testing.TB, request *http.Request) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("a webhook is answered %s", response.Status)
	}
}

// intercept has what the log is sent go through do, which answers nothing: until the log is
// restarted.
func intercept(t *testing.T, l *streamLog, do func(m *nats.Msg)) {
	t.Helper()
	between, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	go between.Start()
	t.Cleanup(between.Shutdown)
	if !between.ReadyForConnections(10 * time.Second) {
		t.Fatal("it isn't ready")
	}
	connect := func() *nats.Conn {
		conn, err := nats.Connect("", nats.InProcessServer(between))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		return conn
	}
	receiver := connect()
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := receiver.Subscribe(subject, do); err != nil {
		t.Fatal(err)
	}
	if err := receiver.Flush(); err != nil {
		t.Fatal(err)
	}
	l.conn = connect()
}

// An append that isn't answered fails after a while, and holds up nothing for longer.
func TestAppendThatIsNotAnswered(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	c := p.newServer(t)
	for _, w := range []int{0, 3} { // a record, and several requests as one
		w := writes[w]
		intercept(t, p.leader.log, func(*nats.Msg) {})
		mustBeUnavailable(t, w.name, c.request(t, w.method, w.path, w.body))
		awaitReady(t, p.leader)
	}
	intercept(t, p.leader.log, func(*nats.Msg) {})
	mustBeUnavailable(t, "a webhook", webhook(t, c.URL, 1, 10))
	awaitReady(t, p.leader)
	post(t, webhook(t, c.URL, 1, 10))
	p.same(t)
}

// loseAnswer has the log take entries, and nobody told of it.
func loseAnswer(t *testing.T, l *streamLog) {
	l.mu.Lock()
	conn := l.conn
	l.mu.Unlock()
	intercept(t, l, func(m *nats.Msg) {
		passed := &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}
		if m.Header.Get(batchSequenceHeader) != "" && m.Header.Get(batchCommitHeader) == "" {
			if err := conn.PublishMsg(passed); err != nil {
				t.Error(err)
			}
			if m.Reply != "" {
				m.Respond(nil)
			}
			return
		}
		if _, err := conn.RequestMsg(passed, logTimeout); err != nil { // whose answer ends here
			t.Error(err)
		}
	})
}

// When the log has an entry whose answer was lost, the writer is told to come again, and the
// entry is applied: whoever comes again is a duplicate, and PocketBase knows what has changed.
func TestEntryWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	c := p.newServer(t)
	for n, size := range []int{10, maxMessage} { // in one message, and in several
		loseAnswer(t, p.leader.log)
		mustBeUnavailable(t, "a webhook", webhook(t, c.URL, n, size))
		awaitReady(t, p.leader)
		for range 2 {
			if got, err := c.CountRecords("aiContent"); err != nil || got != int64(n)+1 {
				t.Errorf("%d records, %v", got, err)
			}
			post(t, webhook(t, c.URL, n, size))
		}
	}

	loseAnswer(t, p.leader.log)
	mustBeUnavailable(t, "a collection", c.request(t, "POST", "/api/collections", `{"name":"more","type":"base"}`))
	awaitReady(t, p.leader)
	c.call(t, "POST", "/api/collections/more/records", `{}`)
	p.same(t)
}

// PocketBase may read the collections of before just when the log's entry is applied, and keep them later than that: they are read again.
func TestCollectionsThatPocketBaseReadsLate(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	c := p.newServer(t)
	before := c.Store().Get(core.StoreKeyCachedCollections)
	c.OnCollectionAfterCreateError().Bind(&hook.Handler[*core.CollectionErrorEvent]{Priority: 10000, Func: func(e *core.CollectionErrorEvent) error {
		awaitReady(t, p.leader)
		c.Store().Set(core.StoreKeyCachedCollections, before)
		return e.Next()
	}})
	loseAnswer(t, p.leader.log)
	mustBeUnavailable(t, "a collection", c.request(t, "POST", "/api/collections", `{"name":"more","type":"base"}`))
	c.call(t, "POST", "/api/collections/more/records", `{}`)
	p.same(t)
}

// Settings too are as the log has them. (PocketBase reads them without a lock when it has
// answered a request, so that this test makes none.)
func TestSettingsWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	app := p.newApp(t)
	settings, err := app.Settings().Clone()
	if err != nil {
		t.Fatal(err)
	}
	settings.Meta.AppName = "other"
	loseAnswer(t, p.leader.log)
	if err := app.Save(settings); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	awaitReady(t, p.leader)
	if got := app.Settings().Meta.AppName; got != "other" {
		t.Errorf("got %q", got)
	}
	p.same(t)
}

// What is appended by another one, in this process or not, is seen before anything is written.
func TestEntryOfAnotherOriginIsApplied(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	c := p.newServer(t)
	var other changes
	other.schema("CREATE TABLE other (a)")
	other.insert("other", 7, 1)
	other.value("from elsewhere")
	if err := p.leader.log.append(p.position(t), other.entry()); err != nil {
		t.Fatal(err)
	}
	mustBeUnavailable(t, "a record", c.request(t, "POST", posts, `{"title":"two"}`))
	awaitReady(t, p.leader)
	c.call(t, "POST", posts, `{"title":"two"}`)
	p.same(t)
	if got := fmt.Sprint(query(t, p.readers[p.path], "SELECT rowid, a FROM other")); got != "[7|from elsewhere]" {
		t.Errorf("got %s", got)
	}
}

// A panic in the append leaves SQLite and the node as any other failure does.
func TestPanicInAppend(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	db.SetMaxOpenConns(1)
	mustExec(t, db, "CREATE TABLE a (b)")
	take := p.leader.append
	p.leader.append = func(uint64, []byte) error { panic("on purpose") }
	if _, err := db.Exec("INSERT INTO a VALUES (1)"); err == nil || !strings.Contains(err.Error(), "on purpose") {
		t.Errorf("got %v", err)
	}
	awaitReady(t, p.leader)
	p.leader.append = take
	mustExec(t, db, "INSERT INTO a VALUES (2)")
	p.same(t)
}

// Entries of all lengths come out of the stream as they went in.
func TestEntriesOfAllLengths(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b)")
	position := p.position(t)
	for _, n := range []int{1, maxMessage - 30, maxMessage, maxMessage + 30, 2 * maxMessage, 8 << 20} {
		mustExec(t, db, fmt.Sprintf("INSERT INTO a VALUES (randomblob(%d))", n))
		grown := p.position(t) - position
		position += grown
		if least := uint64(n / maxMessage); grown < max(least, 1) || grown > least+1 {
			t.Errorf("%d bytes moved the position by %d", n, grown)
		}
	}
	p.same(t)
}

// A database whose log is gone, is another one's, or is older, is refused, and so is a second
// process.
func TestLogThatDoesNotFitIsRefused(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	dir := filepath.Join(t.TempDir(), "data.db-log")
	p.path = strings.TrimSuffix(dir, logSuffix)
	connect := func() *sql.DB {
		t.Helper()
		db, err := p.leader.Connect(p.path)
		if err != nil {
			t.Fatal(err)
		}
		return db.DB()
	}
	db := connect()
	mustExec(t, db, "CREATE TABLE a (b)")
	db.Close()
	p.leader.Close()
	older, kept := dir+"-older", dir+"-kept"
	if err := os.CopyFS(older, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	db = connect()
	mustExec(t, db, "INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (2)")
	refuse := func(want string) {
		t.Helper()
		node, err := Open(Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer node.Close()
		if _, err := node.Connect(p.path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	refuse("another process has the log in " + p.path + "-log: stop it first")
	db.Close()
	if err := p.leader.Close(); err != nil {
		t.Fatal(err)
	}

	if err := os.Rename(dir, kept); err != nil {
		t.Fatal(err)
	}
	refuse("the database has the first 4 of a log, and the folder " + dir + ", where that was, is gone: put it back, or, if it is lost, " + errNewLog.Error())
	if _, err := os.Stat(dir); err == nil {
		t.Error("a new log was begun")
	}

	other := newStreamPair(t)
	otherDB := other.open(t)
	mustExec(t, otherDB, "CREATE TABLE a (b)", "INSERT INTO a VALUES (3)", "INSERT INTO a VALUES (4)", "INSERT INTO a VALUES (5)")
	otherDB.Close()
	other.leader.Close()
	if err := os.Rename(other.path+"-log", dir); err != nil {
		t.Fatal(err)
	}
	refuse("its log is another one than the database follows: put the right one back")

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(older, dir); err != nil {
		t.Fatal(err)
	}
	refuse("the database has the first 4 of a log, and that in " + dir + " ends at 2: it lacks what was last in it: put the right one back")

	if err := os.WriteFile(filepath.Join(dir, "jetstream", "$G", "streams", streamName, "meta.inf"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	refuse("the log in " + dir + " is damaged: put a copy of it back")

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(kept, dir); err != nil {
		t.Fatal(err)
	}
	db = connect()
	defer db.Close()
	mustExec(t, db, "INSERT INTO a VALUES (3)")
	p.same(t)
}

// A database that was deleted is made again from its log.
func TestDeletedDatabaseIsMadeAgain(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b)", "INSERT INTO a VALUES (1)")
	want := fmt.Sprint(p.dump(t, p.path))
	db.Close()
	p.leader.Close()
	p.readers[p.path].Close()
	delete(p.readers, p.path)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(p.path + suffix); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	again, err := p.leader.Connect(p.path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := fmt.Sprint(p.dump(t, p.path)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Messages of an entry whose last ones a power failure has taken are no entry.
func TestEntryThatIsCutOff(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b)")
	for range 2 {
		l := p.leader.log
		part := nats.NewMsg(subject)
		part.Data = []byte{entryVersion, 'I'}
		part.Header.Set(batchSequenceHeader, "1")
		if _, err := l.conn.RequestMsg(part, logTimeout); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec("INSERT INTO a VALUES (1)"); err == nil {
			t.Error("it should be refused")
		}
		awaitReady(t, p.leader)
		mustExec(t, db, "INSERT INTO a VALUES (2)")
	}
	p.same(t)
	if got := fmt.Sprint(query(t, db, "SELECT b FROM a")); got != "[2 2]" {
		t.Errorf("got %s", got)
	}
	var ends []uint64 // each is a position that a snapshot may be brought to
	if err := p.leader.read(0, func(position uint64, _ []byte) error { ends = append(ends, position); return nil }); err != nil || fmt.Sprint(ends) != "[1 2 3 4 5 6]" {
		t.Errorf("entries end at %v, %v", ends, err)
	}
}

// The log ends with the app, and begins again with it.
func TestLogEndsWithTheApp(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	c := p.newServer(t)
	event := &core.TerminateEvent{App: c}
	if err := c.OnTerminate().Trigger(event, func(e *core.TerminateEvent) error {
		if _, err := c.NonconcurrentDB().NewQuery("DELETE FROM posts").WithContext(context.Background()).Execute(); err == nil {
			t.Error("something was written without a log")
		}
		return c.ResetBootstrapState()
	}); err != nil {
		t.Fatal(err)
	}
	if p.leader.log.server != nil {
		t.Error("the log is open")
	}
	if err := c.Bootstrap(); err != nil { // as after a restart that failed
		t.Fatal(err)
	}
	c.call(t, "POST", posts, `{"title":"two"}`)
	p.same(t)
}

// A backup leaves the log and what was put aside out, and a restore is refused.
func TestBackupLeavesTheLogOut(t *testing.T) {
	t.Parallel()
	app := newStreamPair(t).newApp(t)
	aside := filepath.Join(app.DataDir(), asidePrefix+"then")
	if err := errors.Join(os.Mkdir(aside, 0o700), os.WriteFile(filepath.Join(aside, "data.db"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := app.CreateBackup(t.Context(), "a.zip"); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(app.DataDir(), core.LocalBackupsDirName, "a.zip"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), "data.db") || strings.Contains(string(content), "data.db-log") || strings.Contains(string(content), asidePrefix) {
		t.Error("the backup has no database, or the log, or what was put aside")
	}
	if err := app.RestoreBackup(t.Context(), "a.zip"); err == nil || !strings.Contains(err.Error(), errRestore.Error()) {
		t.Errorf("got %v", err)
	}
	c := &client{Server: apptest.Serve(t, app), token: apptest.SuperuserToken(t, app)}
	response, err := http.DefaultClient.Do(c.request(t, "POST", "/api/backups/a.zip/restore", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if answer, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusBadRequest || !strings.Contains(string(answer), "another data directory") {
		t.Errorf("got %s: %s, %v", response.Status, answer, err)
	}
}

// A first start that was killed while JetStream described the stream is as none.
func TestStreamWithoutChecksum(t *testing.T) {
	t.Parallel()
	connect := func(path string) {
		t.Helper()
		node, err := Open(Config{})
		if err != nil {
			t.Fatal(err)
		}
		db, err := node.Connect(path)
		if err == nil {
			err = errors.Join(db.Close(), node.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const meta = "data.db-log/jetstream/$G/streams/log/meta.inf"
	other, dir := t.TempDir(), t.TempDir()
	connect(filepath.Join(other, "data.db"))
	if err := Seed(filepath.Join(dir, "data.db")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, meta)), 0o700); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(other, meta))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, meta), content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		connect(filepath.Join(dir, "data.db"))
	}
}
