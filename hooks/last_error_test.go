package hooks

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/outbox"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// nobody listens there.
const nobody = "http://127.0.0.1:1/v1/callback/"

// Of many whose window ended while their host is silent, some are tried and some are
// not: the row of each has a cause, also of an attempt of an earlier process.
func TestSilentHostLeavesTheCause(t *testing.T) {
	t.Parallel()
	app, p := newTestApp(t, testConfig())
	const n = 4 * outbox.MaxSending
	for i := range n {
		id := fmt.Sprintf("silent%09d", i)
		insertTestCallback(t, app, p, id, nobody+"x")
		set := dbx.Params{"expires": store.DateTime(time.Now().Add(-time.Minute))}
		switch i % 3 {
		case 1:
			set["attempts"], set["lastStatus"], set["lastError"] = 3, 503, "answered 503"
		case 2: // tells of a refusal
			set["attempts"], set["lastError"] = 3, "refused: no; error callback: answered 502"
			set["payload"], set["body"] = generated("x", `{}`, nobody+"x"), `{"error":"processing_failed"}`
		}
		setCallback(t, app, id, set)
	}
	p.outbox.Start()
	defer p.outbox.Stop()
	eventually(t, "all have failed", func() bool {
		failed, err := app.CountRecords(store.Callbacks, dbx.HashExp{"state": store.Failed})
		return err == nil && failed == n
	})
	silent := 0
	for _, row := range records(t, app, store.Callbacks) {
		got, refused := row.GetString("lastError"), row.GetString("payload") != ""
		if refused != strings.HasPrefix(got, "refused: no; error callback: ") {
			t.Errorf("%s: got %q", row.Id, got)
		}
		if !strings.Contains(got, "no answer to the last callbacks to this host") {
			if !strings.Contains(got, "connection refused") {
				t.Errorf("%s was tried: got %q, want connection refused", row.Id, got)
			}
			continue
		}
		silent++
		want, status := "connection refused", 0
		switch {
		case row.GetInt("lastStatus") == 503:
			want, status = "answered 503; not sent again: ", 503
		case refused:
			want = "answered 502; not sent again: "
		}
		if !strings.Contains(got, want) || row.GetInt("lastStatus") != status {
			t.Errorf("%s was not tried: got %q with status %d, want %q", row.Id, got, row.GetInt("lastStatus"), want)
		}
	}
	if silent == 0 {
		t.Error("all were tried: want the host to be known as silent")
	}
}

// While the error callback of a refused event is tried, its row says both.
func TestRefusedRowSaysWhyItsErrorCallbackFails(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	server.OnRecordCreate(store.Content).BindFunc(func(*core.RecordEvent) error { return errors.New("no") })
	server.mustPost(t, generated("refused", `{}`, nobody+"refused"))
	var got string
	eventually(t, "an attempt is written down", func() bool {
		got = only(t, server, store.Callbacks).GetString("lastError")
		return strings.Contains(got, "connection refused")
	})
	if !strings.HasPrefix(got, "refused: no; error callback: ") {
		t.Errorf("lastError: got %q", got)
	}
	setCallback(t, server, only(t, server, store.Callbacks).Id, dbx.Params{"url": newReceiver(t, answerStatus(http.StatusOK)).callbackURL("refused")})
	if got := awaitState(t, server, store.Failed).GetString("lastError"); got != "refused: no" {
		t.Errorf("lastError when it was accepted: got %q, want %q", got, "refused: no")
	}
}
