package hooks

import (
	"bytes"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// Payloads are written behind the answers: by and by, for who looks at one, and when the server
// ends. What was deleted meanwhile is not kept.
func TestPayloadsAreWrittenBehind(t *testing.T) {
	t.Parallel()
	count := func(server *testServer) (n int) {
		if !server.AuxHasTable(store.Payloads) {
			return 0
		}
		if err := server.AuxConcurrentDB().NewQuery("SELECT COUNT(*) FROM modelriverPayloads").Row(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Run("by and by", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("c", `{}`, ""))
		eventually(t, "they are written", func() bool { return count(server) == 1 })
	})
	t.Run("many at once", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		for i := range 3 {
			server.mustPost(t, generated(fmt.Sprint(i), `"`+strings.Repeat("x", payloadsSize)+`"`, ""))
		}
		eventually(t, "they are written", func() bool { return count(server) == 3 })
	})
	t.Run("for who looks", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		token := superuserToken(t, server)
		server.mustPost(t, generated("c", `{}`, ""))
		id := only(t, server, store.Content).Id
		if status, body := server.call(t, token, http.MethodGet, "/api/modelriver/deliveries/"+id, ""); status != 200 || !strings.Contains(body, `"payload":"{\"type`) {
			t.Errorf("got %d %s", status, body)
		}
	})
	t.Run("when the server ends", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("c", `{}`, ""))
		if err := server.plugin.stop(&core.TerminateEvent{App: server}); err != nil {
			t.Fatal(err)
		}
		if n := count(server); n != 1 {
			t.Errorf("got %d payloads, want 1", n)
		}
	})
	t.Run("not of what was deleted", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.plugin.payloads.writing.Lock()
		server.mustPost(t, generated("c", `{}`, ""))
		if err := server.Delete(only(t, server, store.Content)); err != nil {
			t.Fatal(err)
		}
		server.plugin.payloads.add(&store.Payload{Id: "gone", Payload: []byte("{}"), Headers: "{}"})
		server.plugin.payloads.writing.Unlock()
		if rows := payloadsOf(t, server); len(rows) != 0 {
			t.Errorf("got %v, want none", rows)
		}
	})
}

// addPayload has a payload of some size kept, with the record that it needs.
func addPayload(t testing.TB, server *testServer, id string, size int) {
	t.Helper()
	if _, err := server.NonconcurrentDB().Insert(store.Content, dbx.Params{"id": id}).Execute(); err != nil {
		t.Fatal(err)
	}
	server.plugin.payloads.add(&store.Payload{Id: id, Payload: bytes.Repeat([]byte("x"), size), Headers: "{}"})
}

// While auxiliary.db cannot be written, a bounded number of bytes waits, and the latest payload.
func TestPayloadsThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	server.Settings().Logs.MaxDays = 5 // the test app keeps none
	server.plugin.payloads.writing.Lock()
	for i := range 5 {
		addPayload(t, server, fmt.Sprintf("payload%08d", i), maxPayloads/4)
	}
	server.plugin.payloads.mu.Lock()
	if size := server.plugin.payloads.size; size != maxPayloads {
		t.Errorf("got %d bytes, want %d", size, maxPayloads)
	}
	server.plugin.payloads.mu.Unlock()
	server.plugin.payloads.writing.Unlock()
	if rows := payloadsOf(t, server); len(rows) != 4 || rows[0].Id != "payload00000001" {
		t.Errorf("got %d payloads, want the last 4", len(rows))
	}
	if log := logRows(t, server); !strings.Contains(log, "The payloads of 1 webhook were not kept") || !strings.Contains(log, "more came than auxiliary.db took") {
		t.Errorf("log: got %s", log)
	}
	addPayload(t, server, "payload00000009", maxPayloads+1)
	if rows := payloadsOf(t, server); len(rows) != 5 {
		t.Errorf("got %d payloads, want one that is larger than the bound, too", len(rows))
	}
}

// No webhook fails or waits when payloads cannot be written, and that is told, but not each time.
func TestPayloadsThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	t.Run("an error", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.Settings().Logs.MaxDays = 5
		aux := server.AuxNonconcurrentDB()
		if _, err := aux.NewQuery("CREATE VIEW modelriverPayloads AS SELECT '' AS id, '' AS created, 0 AS size").Execute(); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			server.mustPost(t, generated(fmt.Sprint(i), `{}`, ""))
			server.plugin.payloads.write()
		}
		if log := logRows(t, server); strings.Count(log, "were not kept, but") != 1 || !strings.Contains(log, "The payloads of 1 webhook were") {
			t.Errorf("log: got %s, want it once", log)
		}
		if _, err := aux.NewQuery("DROP VIEW modelriverPayloads").Execute(); err != nil {
			t.Fatal(err)
		}
		server.mustPost(t, generated("later", `{}`, ""))
		onlyPayload(t, server)
		server.plugin.payloads.mu.Lock()
		defer server.plugin.payloads.mu.Unlock()
		if lost := server.plugin.payloads.lost; lost != 2 {
			t.Errorf("got %d to be told in the next minute, want 2", lost)
		}
	})
	t.Run("another process writes for long", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		other, err := DBConnect(filepath.Join(server.DataDir(), "auxiliary.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		tx, err := other.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.NewQuery("DELETE FROM _logs").Execute(); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			server.mustPost(t, generated(fmt.Sprint(i), `{}`, ""))
		}
		server.plugin.payloads.flush() // returns before SQLite gives up, after 10 s
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "they are written", func() bool { return len(payloadsOf(t, server)) == 3 })
	})
}

// Without its table nothing is kept, and the next payload makes it: an operator may delete the
// file, and a command may come before the server.
func TestPayloadsWithoutTheirTable(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	server.Settings().Logs.MaxDays = 5
	token := superuserToken(t, server)
	for i := range 2 {
		server.mustPost(t, generated(fmt.Sprint(i), `{}`, ""))
		if got := len(payloadsOf(t, server)); got != 1 {
			t.Fatalf("got %d payloads, want the one that came since", got)
		}
		if _, err := server.AuxNonconcurrentDB().DropTable(store.Payloads).Execute(); err != nil {
			t.Fatal(err)
		}
		id := records(t, server, store.Content)[0].Id
		if status, body := server.call(t, token, http.MethodGet, "/api/modelriver/deliveries/"+id, ""); status != 200 || !strings.Contains(body, `"payload":null`) {
			t.Errorf("got %d %s", status, body)
		}
		_, err := runCommand(server.plugin, "deliveries", id, "--payload")
		wantError(t, err, "its payload is not kept")
		if err := server.Delete(records(t, server, store.Content)[0]); err != nil {
			t.Fatal(err)
		}
		server.plugin.payloads.write()
		deleteOld(server)
	}
	if log := logRows(t, server); strings.Contains(log, "Failed") || strings.Contains(log, "not kept") {
		t.Errorf("log: got %s", log)
	}
}

// PocketBase keeps its logs in the same file. Whatever becomes of them, payloads stay.
func TestPayloadsOutliveLogs(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	server.mustPost(t, generated("c", `{}`, ""))
	onlyPayload(t, server)
	settings := server.Settings()
	settings.Logs.MaxDays = 0
	if err := server.Save(settings); err != nil {
		t.Fatal(err)
	}
	for _, job := range server.Cron().Jobs() {
		if job.Id() == "__pbLogsCleanup__" || job.Id() == "__pbDBOptimize__" {
			job.Run()
		}
	}
	onlyPayload(t, server)
	server.mustPost(t, generated("d", `{}`, ""))
	if got := len(payloadsOf(t, server)); got != 2 {
		t.Errorf("with logs off: got %d payloads, want 2", got)
	}
}

// A closedApp's databases are closed while something still writes to them, as when the server ends.
type closedApp struct{ core.App }

func (closedApp) ConcurrentDB() dbx.Builder { return nil }

// Payloads that are written when the server ends, and it does not wait for any longer, don't take
// the process with them, which is about to start again.
func TestPayloadsWhenTheDatabaseCloses(t *testing.T) {
	t.Parallel()
	app, _ := newTestApp(t, testConfig())
	p := payloads{app: closedApp{app}}
	p.add(&store.Payload{Id: "a", Payload: []byte("{}"), Headers: "{}"})
	p.write()
}
