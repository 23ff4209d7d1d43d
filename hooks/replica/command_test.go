package replica

import (
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/gob"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"modernc.org/sqlite"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// Commands work on every node, as they do on one: also where the server is down, and nothing was before.
func TestCommandsWorkOnEveryNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	apps, clients := c.apps(t)
	leader := c.leader(t)
	down, up := others(leader)
	fresh := t.TempDir()
	migrate := c.command(t, down, fresh, "migrate", "up")
	migrate.Env = append(migrate.Env, "TEST_MIGRATE=1")
	if out := migrate.run(t); !strings.Contains(out, "Applied 4000000000_host.go") {
		t.Errorf("got %s", out)
	}
	if posts, err := apps[leader].FindCachedCollectionByNameOrId("posts"); err != nil || posts.GetIndex("posts_title") == "" {
		t.Errorf("got %v, %v", posts, err)
	}
	if got := apps[leader].Settings().Meta.AppName; got != "of a migration" {
		t.Errorf("got %q", got)
	}
	c.same(t)
	c.stop(t, down)
	login := func(i int, password string) int {
		return clients[i].status(t, "POST", "/api/collections/_superusers/auth-with-password", fmt.Sprintf(`{"identity":"a@example.com","password":%q}`, password))
	}
	for i, dir := range map[int]string{leader: filepath.Dir(c.paths[leader]), up: filepath.Dir(c.paths[up]), down: fresh} {
		password := "password of " + c.configs[i].Node
		if out := c.command(t, i, dir, "superuser", "upsert", "a@example.com", password).run(t); !strings.Contains(out, "Successfully saved") {
			t.Errorf("got %s", out)
		}
		c.same(t)
		for _, i := range []int{leader, up} {
			if got := login(i, password); got != 200 {
				t.Errorf("got %d", got)
			}
		}
	}
	for _, name := range []string{"data.db", "data.db" + logSuffix} {
		if _, err := os.Stat(filepath.Join(fresh, name)); err == nil {
			t.Errorf("a command made %s", name)
		}
	}
	clients[up].call(t, "POST", posts, `{"title":"by a server"}`)

	c.command(t, down, fresh, "again", "one").mustFail(t, "title: Value must be unique")
	wanted := c.command(t, up, filepath.Dir(c.paths[up]), "post", "two", "three", "wait")
	if err := wanted.Start(); err != nil {
		t.Fatal(err)
	}
	wanted.await(t, "waits")
	if n, err := apps[leader].CountRecords("posts"); err != nil || n != 2 {
		t.Errorf("%d posts, %v", n, err)
	}
	var streams []*apptest.Stream
	for _, i := range []int{leader, up} {
		streams = append(streams, clients[i].Subscribe(t, clients[i].token, "posts/*", "_superusers/*"))
	}
	fmt.Fprintln(wanted.in, "yes")
	if err := wanted.Wait(); err != nil {
		t.Errorf("%v: %s", err, &wanted.err)
	}
	for _, stream := range streams { // as of what a server does
		mustHear(t, stream, `"title":"three"`)
	}
	for _, end := range []func(*command){
		func(p *command) { fmt.Fprintln(p.in, "no") },
		func(p *command) { p.Process.Signal(os.Interrupt) },
		func(p *command) { p.Process.Kill() },
	} {
		unwanted := c.command(t, down, fresh, "post", "four", "wait")
		if err := unwanted.Start(); err != nil {
			t.Fatal(err)
		}
		unwanted.await(t, "waits")
		end(unwanted)
		unwanted.Wait()
		clients[up].call(t, "POST", posts, `{"title":"four"}`) // also in the index
		clients[up].sql(t, "DELETE FROM posts WHERE title = 'four'")
	}
	c.same(t)
	if n, err := apps[leader].CountRecords("posts"); err != nil || n != 4 {
		t.Errorf("%d posts, %v", n, err)
	}

	c.command(t, down, fresh, "backup").mustFail(t, errBackup.Error())
	c.command(t, down, fresh, "other-serve").mustFail(t, errServes.Error())
	c.stop(t, up)
	apptest.Eventually(t, "the last node leads no more", func() bool { return !c.nodes[leader].Leads() })
	c.command(t, down, fresh, "superuser", "upsert", "a@example.com", "password").mustFail(t, errNoLeader.Error(), "see that the servers of most of the nodes run (n1, n2, n3)")
}

// A node without others has no port for commands: they say that its server must be stopped.
func TestCommandBesideOneNode(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	app := p.newApp(t)
	c := &cluster{}
	run := func() *command {
		return c.command(t, 0, app.DataDir(), "superuser", "upsert", "a@example.com", "password")
	}
	run().mustFail(t, "another process has the log", "stop it first")
	if err := errors.Join(p.leader.Close(), app.ResetBootstrapState()); err != nil {
		t.Fatal(err)
	}
	run().run(t)
}

// newRemote returns a cluster, its leader, and the database as a command on another node has it.
func newRemote(t *testing.T, statements ...string) (c *cluster, leader int, db *sql.DB) {
	t.Helper()
	c = newCluster(t, statements...)
	c.start(t, 0, 1, 2)
	leader = c.leader(t)
	follower, _ := others(leader)
	return c, leader, c.remote(t, follower)
}

// Values are for a command what they are for a server.
func TestValuesOfACommand(t *testing.T) {
	t.Parallel()
	c, leader, db := newRemote(t, "CREATE TABLE a (i INTEGER PRIMARY KEY, b, c DATETIME, d BOOLEAN)")
	now := time.Now()
	values := []any{
		nil, true, int64(math.MinInt64), 1.5, math.Inf(1), math.Copysign(0, -1), "", "a\x00\xffé", []byte(nil), []byte{}, []byte("\x00"),
		now, now.UTC().Round(0), now.In(time.FixedZone("somewhere", 3600)), sql.NullString{}, strings.Repeat("x", 3<<20),
	}
	for _, on := range []*sql.DB{c.dbs[leader], db} {
		for _, v := range values {
			if _, err := on.Exec("INSERT INTO a (b, c, d) VALUES (?, ?, :named)", v, now, sql.Named("named", v)); err != nil {
				t.Fatalf("%v: %v", v, err)
			}
		}
	}
	const all = "SELECT b, typeof(b), hex(b), c, typeof(c), d FROM a WHERE i > ? ORDER BY i"
	n := len(values)
	for _, on := range []*sql.DB{c.dbs[leader], db} {
		want, got := query(t, c.dbs[leader], all+" LIMIT ?", 0, n), query(t, on, all, n)
		mustEqual(t, want, got)
	}
	mustEqual(t, query(t, c.dbs[leader], all, 0), query(t, db, all, 0))
	result, err := db.Exec("INSERT INTO a (b) VALUES (1), (2)")
	if err != nil {
		t.Fatal(err)
	}
	id, _ := result.LastInsertId()
	if affected, _ := result.RowsAffected(); affected != 2 || id != int64(2*n+2) {
		t.Errorf("got %d rows, and the id %d", affected, id)
	}
	var b any
	if err := db.QueryRow("SELECT b FROM a WHERE i = -1").Scan(&b); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("got %v", err)
	}
	if err := db.QueryRow("INSERT INTO a (b) VALUES ('returned') RETURNING b").Scan(&b); err != nil || b != "returned" {
		t.Errorf("got %v, %v", b, err)
	}
	prepared, err := db.Prepare("SELECT count(*) FROM a WHERE b = ?")
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Close()
	if err := prepared.QueryRow("returned").Scan(&b); err != nil || b != int64(1) {
		t.Errorf("got %v, %v", b, err)
	}
	c.same(t)
}

// Rows come as they are read, and other statements between them.
func TestRowsOfACommand(t *testing.T) {
	t.Parallel()
	c, leader, db := newRemote(t, "CREATE TABLE a (b)", "CREATE TABLE c (d)",
		"WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 10000) INSERT INTO a SELECT randomblob(i % 7 * 1000) FROM n", "INSERT INTO a VALUES (randomblob(9000000))")
	hash, n := sha256.New(), 0
	each := func(db interface {
		Query(string, ...any) (*sql.Rows, error)
	}, query string, f func([]byte) bool) {
		t.Helper()
		rows, err := db.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var b []byte
			if err := rows.Scan(&b); err != nil {
				t.Fatal(err)
			}
			if !f(b) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	each(c.dbs[leader], "SELECT b FROM a ORDER BY rowid", func(b []byte) bool { hash.Write(b); n++; return true })
	if want, got := fmt.Sprintf("%d %x\n", n, hash.Sum(nil)), c.command(t, 0, t.TempDir(), "read", "a").run(t); got != want {
		t.Errorf("got %s, want %s", got, want)
	}

	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	total := 0
	each(tx, "SELECT b FROM a ORDER BY rowid", func(b []byte) bool {
		total += len(b)
		_, err := tx.Exec("INSERT INTO c VALUES (?)", len(b))
		return err == nil
	})
	each(tx, "SELECT b FROM a", func([]byte) bool { return false }) // which leaves more than a batch
	mustExec(t, tx, "DROP TABLE a")                                 // which nobody may read
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := query(t, db, "SELECT count(*), sum(d) FROM c"); got[0] != fmt.Sprint(n, "|", total) {
		t.Errorf("got %s", got)
	}
	c.same(t)
}

// What fails for a command is what fails for a server, and undoes as much.
func TestErrorsOfACommand(t *testing.T) {
	t.Parallel()
	c, leader, db := newRemote(t, "CREATE TABLE a (b UNIQUE)", "INSERT INTO a VALUES (1)")
	for _, statement := range []string{
		"INSERT INTO a VALUES (1)", "SELEC", "SELECT * FROM nothing", "INSERT INTO a VALUES (?)", "BEGIN", "ATTACH 'b.db' AS b",
		"WITH n(i) AS (VALUES (0) UNION ALL VALUES (1)) SELECT abs(-9223372036854775807 - i) FROM n", "UPDATE " + positionTable + " SET position = 0",
	} {
		for _, run := range []func(*sql.DB) error{
			func(db *sql.DB) error { _, err := db.Exec(statement); return err },
			func(db *sql.DB) error {
				rows, err := db.Query(statement)
				if err != nil {
					return err
				}
				defer rows.Close()
				for rows.Next() {
				}
				return rows.Err()
			},
		} {
			want, got := run(c.dbs[leader]), run(db)
			var wantSQLite, gotSQLite *sqlite.Error
			if want == nil || got == nil || want.Error() != got.Error() || errors.As(want, &wantSQLite) != errors.As(got, &gotSQLite) ||
				wantSQLite != nil && (wantSQLite.Code() != gotSQLite.Code() || wantSQLite.Error() != gotSQLite.Error()) {
				t.Errorf("%s: got %v, want %v", statement, got, want)
			}
		}
	}
	if err := error(failureOf(fmt.Errorf("%w: because", ErrUnavailable))); !errors.Is(err, ErrUnavailable) || err.Error() != ErrUnavailable.Error()+": because" {
		t.Errorf("got %v", err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, tx, "INSERT INTO a VALUES (2)")
	if _, err := tx.Exec("INSERT INTO a VALUES (1)"); err == nil || !strings.Contains(err.Error(), "UNIQUE constraint failed: a.b") {
		t.Errorf("got %v", err)
	}
	mustExec(t, tx, "INSERT INTO a VALUES (3)")
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if tx, err = db.Begin(); err != nil {
		t.Fatal(err)
	}
	mustExec(t, tx, "INSERT INTO a VALUES (4)")
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	if got := query(t, db, "SELECT b FROM a"); fmt.Sprint(got) != "[1 2 3]" {
		t.Errorf("got %s", got)
	}
	c.same(t)
}

// A command that does nothing in its transaction doesn't keep others from writing, and is told so.
func TestIdleTransactionOfACommand(t *testing.T) {
	t.Parallel()
	c, leader, db := newRemote(t, "CREATE TABLE a (b)")
	db.SetMaxOpenConns(1)
	for _, commit := range []bool{true, false} {
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		mustExec(t, tx, "INSERT INTO a VALUES ('idle')")
		apptest.Eventually(t, "the server writes", func() bool {
			_, err := c.dbs[leader].Exec("INSERT INTO a VALUES ('server')")
			return err == nil
		})
		if _, err := tx.Exec("INSERT INTO a VALUES ('late')"); err == nil || err.Error() != errIdle.Error() {
			t.Errorf("got %v", err)
		}
		if commit {
			if err := tx.Commit(); err == nil || err.Error() != errIdle.Error() {
				t.Errorf("got %v", err)
			}
		} else if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
		mustExec(t, db, "INSERT INTO a VALUES ('command')")
	}
	if got := query(t, db, "SELECT b FROM a"); fmt.Sprint(got) != "[server command server command]" {
		t.Errorf("got %s", got)
	}
	c.same(t)
}

// Rows that a command leaves open don't keep the WAL from being cut, and are no end of the rows.
func TestRowsThatACommandLeavesOpen(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)", "WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO a SELECT randomblob(1000) FROM n")
	c.prepare = func(_ int, node *Node) { node.idleRows = 100 * time.Millisecond }
	c.start(t, 0, 1, 2)
	leader := c.leader(t)
	follower, _ := others(leader)
	db := c.remote(t, follower)
	rows, err := db.Query("SELECT b FROM a")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	c.insert(t, "meanwhile")
	apptest.Eventually(t, "the WAL is cut", func() bool {
		return query(t, c.dbs[leader], "PRAGMA wal_checkpoint(TRUNCATE)")[0] == "0|0|0"
	})
	for rows.Next() {
	}
	if err := rows.Err(); err == nil || err.Error() != errIdleRows.Error() {
		t.Errorf("got %v", err)
	}
	if err := rows.Close(); err != nil {
		t.Error(err)
	}
	if got := query(t, db, "SELECT count(*) FROM a"); got[0] != "1001" {
		t.Errorf("got %s", got)
	}
	c.same(t)
}

// A server doesn't end only once a command's session has: that may wait for what holds the write lock.
func TestCloseDoesNotWaitForACommand(t *testing.T) {
	t.Parallel()
	c, leader, _ := newRemote(t)
	peer := c.nodes[leader].peer
	if !peer.enter() {
		t.Fatal("no session may begin")
	}
	defer peer.sessions.Done()
	closed := make(chan error, 1)
	go func() { closed <- c.nodes[leader].Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the node waits")
	}
}

// When another node leads, a command goes on with that one, but for a transaction, which is undone.
func TestCommandWhenAnotherNodeLeads(t *testing.T) {
	t.Parallel()
	c, leader, db := newRemote(t, "CREATE TABLE a (b)")
	a, b := others(leader)
	for i, next := range []int{a, b} {
		for _, conn := range []*sql.Conn{connOf(t, db), connOf(t, db)} { // which stay, one without a transaction
			conn.Close()
		}
		mustExec(t, db, "INSERT INTO a VALUES ('before')")
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		mustExec(t, tx, "INSERT INTO a VALUES ('undone')")
		if i == 0 {
			c.makeLead(t, next)
		} else {
			c.stop(t, c.leader(t))
			c.leader(t)
		}
		if _, err := tx.Exec("INSERT INTO a VALUES ('undone')"); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errUndone) {
			t.Errorf("got %v", err)
		}
		if err := tx.Commit(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		mustExec(t, db, "INSERT INTO a VALUES ('after')")
	}
	c.same(t)
	if got := query(t, db, "SELECT b FROM a"); fmt.Sprint(got) != "[before after before after]" {
		t.Errorf("got %s", got)
	}
}

// A command is told when the server is killed that it writes to, and then goes on with another one: on a machine whose
// own server is down.
func TestCommandWhenTheLeaderIsKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	servers := c.serve(t, 0, 1, 2)
	db := c.remote(t, 0)
	count := func() (n int) {
		apptest.Eventually(t, "a node leads that has migrated", func() bool {
			return db.QueryRow("SELECT count(*) FROM posts").Scan(&n) == nil
		})
		return n
	}
	p, err := newPeer(c.configs[0])
	if err != nil {
		t.Fatal(err)
	}
	whole := func() (leader int) {
		apptest.Eventually(t, "a node leads, and the others have all of the log", func() bool {
			name, err := p.leader()
			if err != nil {
				return false
			}
			leader = slices.IndexFunc(c.configs[:], func(config Config) bool { return config.Node == name })
			state, err := p.state(name)
			return err == nil && state.Leads && len(state.Behind) == 0
		})
		return leader
	}
	count()
	for i, says := range []error{errUndone, errMayBe} {
		leader := whole()
		down, _ := others(leader)
		servers[down].Process.Kill()
		servers[down].Wait()
		var command *command
		title := fmt.Sprint("title ", i)
		if errors.Is(says, errUndone) {
			command = c.command(t, down, t.TempDir(), "post", title, "wait", "late "+title)
		} else {
			command = c.command(t, down, t.TempDir(), "post", title, "wait")
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		command.await(t, "waits")
		servers[leader].Process.Kill()
		servers[leader].Wait()
		fmt.Fprintln(command.in, "yes")
		if err := command.Wait(); err == nil || !strings.Contains(command.err.String(), says.Error()) {
			t.Errorf("got %v: %s", err, &command.err)
		}
		again := c.serve(t, down, leader)
		servers[down], servers[leader] = again[down], again[leader]
		if n := count(); n != i {
			t.Errorf("%d posts", n)
		}
		whole()
		command = c.command(t, down, t.TempDir(), "post", title, "wait")
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		command.await(t, "waits")
		fmt.Fprintln(command.in, "yes")
		if err := command.Wait(); err != nil {
			t.Errorf("%v: %s", err, &command.err)
		}
	}
	if n := count(); n != 2 {
		t.Errorf("%d posts", n)
	}
}

// A connection is lost whose other end says nothing, once another node leads.
func TestCommandWithANodeThatStandsStill(t *testing.T) {
	t.Parallel()
	c, leader, _ := newRemote(t, "CREATE TABLE a (b)")
	follower, _ := others(leader)
	p, err := newPeer(c.configs[follower])
	if err != nil {
		t.Fatal(err)
	}
	connect := func() *leaderConn {
		here, there := net.Pipe()
		go func() {
			for in := gob.NewDecoder(there); in.Decode(new(request)) == nil; {
			}
		}()
		return &leaderConn{peer: p, leader: c.configs[follower].Node, stream: here, out: gob.NewEncoder(here), in: gob.NewDecoder(here)}
	}
	conn := connect()
	if err := (leaderTx{conn}).Commit(); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errMayBe) || conn.IsValid() {
		t.Errorf("got %v", err)
	}
	if _, err := connect().BeginTx(t.Context(), driver.TxOptions{}); !errors.Is(err, driver.ErrBadConn) {
		t.Errorf("got %v", err)
	}
	if _, err := connect().ExecContext(t.Context(), "DELETE FROM a", nil); !errors.Is(err, errMayBe) {
		t.Errorf("got %v", err)
	}
}

// What is asked for and isn't there, or is unknown, is an error, and the stream goes on.
func TestSessionRefusesWhatIsNotThere(t *testing.T) {
	t.Parallel()
	_, _, db := newRemote(t, "CREATE TABLE a (b)")
	err := connOf(t, db).Raw(func(c any) error {
		conn := c.(*leaderConn)
		for _, r := range []request{{Do: doCommit}, {Do: doRollback}, {Do: doNext, Rows: 1}, {Do: doClose, Rows: 1}, {Do: "other"}, {}} {
			if _, err := conn.ask(t.Context(), r); err == nil {
				t.Errorf("%+v is answered", r)
			}
		}
		_, err := conn.ask(t.Context(), request{Do: doBegin})
		if _, again := conn.ask(t.Context(), request{Do: doBegin}); again == nil {
			t.Error("a transaction began in another one")
		}
		_, end := conn.ask(t.Context(), request{Do: doCommit})
		return errors.Join(err, end)
	})
	if err != nil {
		t.Error(err)
	}
}

// A node may lead, and commands write, before its app has bootstrapped, which reads collections and settings then.
func TestCommandBeforeTheAppHasBootstrapped(t *testing.T) {
	t.Parallel()
	node := newNode(t, &memoryLog{})
	node.Register(core.NewBaseApp(core.BaseAppConfig{DataDir: t.TempDir()}), nil)
	var c changes
	c.delete("_collections", 1)
	c.delete("_params", 1)
	node.reloadChanged(c.entry())
}

// A hook of the app that panics when settings are read again must not end what follows the log.
func TestHookThatPanicsWhenSettingsAreRead(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	app := p.newApp(t)
	app.OnSettingsReload().BindFunc(func(*core.SettingsReloadEvent) error { panic("of a hook") })
	if err := p.leader.reloadApp(false, true); err == nil || !strings.Contains(err.Error(), "of a hook") {
		t.Errorf("got %v", err)
	}
}

// Settings that somebody has deleted must not keep a node from what comes behind that in the log.
func TestSettingsThatAreGone(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	app := p.newApp(t)
	if _, err := app.DB().NewQuery("DELETE FROM _params WHERE id = 'settings'").Execute(); err != nil {
		t.Fatal(err)
	}
	p.leader.ready.Store(false) // as one that follows
	defer p.leader.ready.Store(true)
	if err := p.leader.reloadApp(false, true); err != nil {
		t.Error(err)
	}
}
