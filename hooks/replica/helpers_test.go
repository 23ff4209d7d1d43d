package replica

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

func TestMain(m *testing.M) { apptest.Main(m) }

// A memoryLog is a log that refuses what doesn't follow.
type memoryLog struct {
	mu      sync.Mutex
	entries [][]byte
	refuse  error // instead of taking an entry
	lose    error // once it has taken one
}

func (l *memoryLog) append(after uint64, entry []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return l.refuse
	}
	end := uint64(0)
	for _, e := range l.entries {
		end += messages(e)
	}
	if after != end {
		return errBehind
	}
	l.entries = append(l.entries, slices.Clone(entry))
	return l.lose
}

func (l *memoryLog) read(after uint64, apply func(position uint64, entry []byte) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return l.refuse
	}
	end := uint64(0)
	for _, e := range l.entries {
		end += messages(e)
		if end <= after {
			continue
		}
		if err := apply(end, e); err != nil {
			return err
		}
	}
	return nil
}

func (l *memoryLog) set(refuse, lose error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse, l.lose = refuse, lose
}

func (l *memoryLog) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

// newNode returns a node whose log is in memory.
func newNode(t testing.TB, log *memoryLog) *Node {
	t.Helper()
	node := nodeOf(log.append, log.read)
	t.Cleanup(func() { node.Close() })
	return node
}

// nodeOf returns a node with a log that has no snapshots.
func nodeOf(append func(uint64, []byte) error, read func(uint64, func(uint64, []byte) error) error) *Node {
	none := func() error { return nil }
	node := &Node{append: append, read: read, restart: none, shut: none}
	node.connect = func(path string) (*applier, bool, error) {
		at, err := standingOf(path)
		if err != nil {
			return nil, false, err
		}
		if at.empty {
			a, err := newApplier(path)
			if err == nil {
				err = errors.Join(a.begin("test", 0), a.close())
			}
			if err != nil {
				return nil, false, err
			}
		}
		a, err := node.follow(path)
		return a, true, err
	}
	return node
}

// awaitReady waits until what the node didn't know of its log is known.
func awaitReady(t testing.TB, node *Node) {
	t.Helper()
	apptest.Eventually(t, "the node can be written to", node.ready.Load)
}

// A pair is a database that is written to, and one that its log is applied to.
type pair struct {
	log      *memoryLog // nil if it is a stream
	cluster  *cluster   // whose other nodes are followers too, if the leader is one of several
	leader   *Node
	follower *Node  // without a database until the leader has one
	path     string // of the leader's database
	copy     string // of the follower's

	readers map[string]*sql.DB // by path
	rows    map[string]string  // the query for all rows, by the schema of the table
}

// newPair returns a pair whose log is in memory.
func newPair(t testing.TB) *pair {
	t.Helper()
	log := &memoryLog{}
	p := pairOf(t, newNode(t, log))
	p.log = log
	return p
}

// newStreamPair returns a pair whose log is on disk, as outside of tests.
func newStreamPair(t testing.TB) *pair {
	t.Helper()
	t.TempDir() // which is deleted after the node is closed
	node, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	return pairOf(t, node)
}

func pairOf(t testing.TB, leader *Node) *pair {
	follower := nodeOf(func(uint64, []byte) error { return errors.New("this node follows") }, leader.read)
	t.Cleanup(func() { follower.Close() })
	return &pair{leader: leader, follower: follower, copy: filepath.Join(t.TempDir(), "data.db"), readers: map[string]*sql.DB{}, rows: map[string]string{}}
}

// position returns how far the leader has come.
func (p *pair) position(t testing.TB) uint64 {
	t.Helper()
	position, err := p.leader.position()
	if err != nil {
		t.Fatal(err)
	}
	return position
}

// open opens the leader's database, without an app.
func (p *pair) open(t testing.TB) *sql.DB {
	t.Helper()
	p.path = filepath.Join(t.TempDir(), "data.db")
	db, err := p.leader.Connect(p.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db.DB()
}

// same applies what the log has and fails unless both databases are the same.
func (p *pair) same(t testing.TB) {
	t.Helper()
	if p.cluster != nil {
		p.cluster.same(t)
		return
	}
	p.catchUp(t)
	mustEqual(t, p.dump(t, p.path), p.dump(t, p.copy))
}

// mustEqual fails unless two dumps are the same.
func mustEqual(t testing.TB, want, got []string) {
	t.Helper()
	for i := range max(len(want), len(got)) {
		w, g := "nothing", "nothing"
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			t.Fatalf("the databases differ:\nwritten %.600s\napplied %.600s", w, g)
		}
	}
}

// catchUp has the follower apply the entries that it doesn't have.
func (p *pair) catchUp(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(p.copy); err != nil && p.leader.log != nil {
		all := snapshots(snapshotDir(p.path))
		if err := all[len(all)-1].copyTo(p.copy); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.follower.open(p.copy); err != nil {
		t.Fatal(err)
	}
	p.follower.mu.Lock()
	defer p.follower.mu.Unlock()
	if err := p.follower.catchUp(t.Context(), p.follower.applier, endOfLog); err != nil {
		t.Fatal(err)
	}
}

// dump returns the schema and every row of a database: rowids, types and bytes. The tables
// of statistics are left out.
func (p *pair) dump(t testing.TB, path string) []string {
	t.Helper()
	db := p.readers[path]
	if db == nil {
		var err error
		if db, err = sql.Open("sqlite", path+"?_pragma=busy_timeout(10000)&_pragma=query_only(ON)"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		p.readers[path] = db
	}
	lines := query(t, db, "SELECT type, name, tbl_name, ifnull(sql, '') FROM sqlite_schema WHERE tbl_name NOT LIKE 'sqlite_stat%' ORDER BY type, name")
	for _, schema := range query(t, db, "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%' ORDER BY name") {
		if p.rows[schema] == "" {
			p.rows[schema] = selectRows(t, db, schema)
		}
		for _, row := range query(t, db, p.rows[schema]) {
			lines = append(lines, schema[:min(len(schema), 40)]+": "+row)
		}
	}
	return lines
}

// selectRows returns a query for all of a table's rows.
func selectRows(t testing.TB, db *sql.DB, schema string) string {
	t.Helper()
	table := query(t, db, "SELECT name FROM sqlite_schema WHERE sql = ?", schema)[0]
	if table == positionTable {
		return "SELECT position FROM " + positionTable // a pair has one log
	}
	columns := query(t, db, "SELECT name FROM pragma_table_xinfo(?) ORDER BY cid", table)
	expressions := []string{"_rowid_"}
	if slices.Contains(columns, "_rowid_") {
		expressions[0] = "oid"
	}
	for _, c := range columns { // as expressions, whose values the driver leaves alone
		c = quote(c)
		expressions = append(expressions, "typeof("+c+")", "CAST("+c+" AS BLOB)", "CASE typeof("+c+") WHEN 'real' THEN "+c+" END")
	}
	return "SELECT " + strings.Join(expressions, ",") + " FROM " + quote(table) + " ORDER BY 1"
}

// query returns rows as text, which tells apart all that SQLite does.
func query(t testing.TB, db *sql.DB, q string, args ...any) []string {
	t.Helper()
	rows, err := db.Query(q, args...)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for rows.Next() {
		values, pointers := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			pointers[i] = &values[i]
		}
		if err := rows.Scan(pointers...); err != nil {
			t.Fatal(err)
		}
		texts := make([]string, len(values))
		for i, v := range values {
			switch v := v.(type) {
			case []byte:
				if texts[i] = fmt.Sprintf("%x", sha256.Sum256(v)); len(v) < 1000 {
					texts[i] = fmt.Sprintf("%q", v)
				}
			case float64:
				texts[i] = fmt.Sprintf("%x", math.Float64bits(v))
			default:
				texts[i] = fmt.Sprint(v)
			}
		}
		lines = append(lines, strings.Join(texts, "|"))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

func mustExec(t testing.TB, db interface {
	Exec(string, ...any) (sql.Result, error)
}, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// connOf returns a connection that nobody else uses during the test.
func connOf(t testing.TB, db *sql.DB) *sql.Conn {
	t.Helper()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// newApp returns an app whose database is the leader's, from its first migration on.
func (p *pair) newApp(t testing.TB) *tests.TestApp {
	t.Helper()
	dir := t.TempDir()
	if p.cluster != nil {
		dir = filepath.Dir(p.path)
	}
	app := newApp(t, p.leader, dir)
	p.leader.Register(app, nil)
	p.path = filepath.Join(app.DataDir(), "data.db")
	return app
}

// newApp returns an app that has a node's database, in that folder. (One of PocketBase's for tests would have a copy.)
func newApp(t testing.TB, node *Node, dir string) *tests.TestApp {
	t.Helper()
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: dir, DBConnect: node.Connect})
	err := app.Bootstrap()
	if err == nil {
		err = app.RunAllMigrations()
	}
	if err != nil {
		t.Fatal(err)
	}
	app.Settings().Logs.MaxDays = 0 // as one of PocketBase's for tests
	test := &tests.TestApp{BaseApp: app, TestMailer: &tests.TestMailer{}}
	app.OnMailerSend().BindFunc(func(e *core.MailerEvent) error {
		e.Mailer = test.TestMailer
		return e.Next()
	})
	t.Cleanup(test.Cleanup)
	return test
}

// A client talks to an app over HTTP.
type client struct {
	*apptest.Server
	token string
}

// request returns a request of a superuser.
func (c *client) request(t testing.TB, method, path, body string) *http.Request {
	t.Helper()
	request, err := http.NewRequest(method, c.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", c.token)
	return request
}

// send sends a request, which must succeed, and returns the answer's body.
func send(t testing.TB, request *http.Request) string {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode >= 300 {
		t.Fatalf("%s %s: %d %s", request.Method, request.URL.Path, response.StatusCode, answer)
	}
	return string(answer)
}

func (c *client) call(t testing.TB, method, path, body string) string {
	t.Helper()
	return send(t, c.request(t, method, path, body))
}

// sql runs statements in the dashboard's console.
func (c *client) sql(t testing.TB, statements string) {
	t.Helper()
	c.call(t, "POST", "/api/sql", fmt.Sprintf(`{"query":%q}`, statements))
}

func (c *client) upload(t testing.TB, method, path, field, name, content string) {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile(field, name)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(part, content)
	form.Close()
	request := c.request(t, method, path, body.String())
	request.Header.Set("Content-Type", form.FormDataContentType())
	send(t, request)
}

// status sends a request and returns the status of the answer.
func (c *client) status(t testing.TB, method, path, body string) int {
	t.Helper()
	response, err := http.DefaultClient.Do(c.request(t, method, path, body))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// position returns how far the database has come in the log.
func (n *Node) position() (uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.applier == nil {
		return 0, errNotConnected
	}
	return n.applier.position()
}
