package outbox

import (
	"errors"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
	_ "github.com/pocketriver/pocketriver/migrations"
)

// A claim that failed may be committed all the same, when nobody waits for it any more. Then
// the request is sent later; one that is being sent, or was sent, is left alone.
func TestLateClaim(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	commits := commit.New(app, store.Content)
	client, err := modelriver.NewClient(modelriver.ClientOptions{APIKey: "key", APIURL: "http://127.0.0.1:1", Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	o := New(app, commits, client, Options{Keyed: true})
	now := time.Now()
	o.Now = func() time.Time { return now }
	ids := []string{"committedlate00", "sentagainsince0", "sentmeanwhile00"}
	for _, id := range ids {
		insertQueued(t, app, id, now)
	}

	// The claim fails, as too much waits for the database.
	release := holdFull(commits)
	if err := o.claimAndAsk(ids); !errors.Is(err, commit.ErrBusy) {
		t.Fatalf("claim: got %v, want %v", err, commit.ErrBusy)
	}
	release()
	apptest.Eventually(t, "nothing waits for the database", func() bool { return !commits.Busy() })
	set := func(id string, values dbx.Params) {
		if _, err := app.NonconcurrentDB().Update(store.Requests, values, dbx.HashExp{"id": id}).Execute(); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids { // but was committed
		set(id, dbx.Params{"attempts": 1, "nextAttempt": ""})
	}
	set("sentmeanwhile00", dbx.Params{"state": store.Sent, "expires": store.DateTime(now.Add(time.Hour))})
	o.asking.posts["sentagainsince0"] = now
	armed := func() (armed string) {
		for _, id := range ids {
			request, err := store.FindRequest(app, id)
			if err != nil {
				t.Fatal(err)
			}
			if request.GetString("nextAttempt") != "" {
				armed += id
			}
		}
		return armed
	}

	if err := o.tidyRequests(); err != nil || armed() != "" {
		t.Errorf("at once: got %q armed (%v), want none: the claim may still be committed", armed(), err)
	}
	now = now.Add(2*commit.MaxWait + tidyInterval)
	if err := o.tidyRequests(); err != nil || armed() != "committedlate00" {
		t.Errorf("later: got %q armed (%v), want the one that nobody sends", armed(), err)
	}
}

func insertQueued(t *testing.T, app core.App, id string, at time.Time) {
	t.Helper()
	collection, err := app.FindCollectionByNameOrId(store.Requests)
	if err != nil {
		t.Fatal(err)
	}
	request := core.NewRecord(collection)
	request.Load(map[string]any{
		"id": id, "workflow": "story", "input": map[string]any{}, "state": store.Queued,
		"nextAttempt": store.DateTime(at), "expires": store.DateTime(at.Add(askWindow)),
	})
	if err := app.Save(request); err != nil {
		t.Fatal(err)
	}
}

// holdFull has the committer take nothing, until it is called.
func holdFull(c *commit.Committer) (release func()) {
	began, held := make(chan struct{}), make(chan struct{})
	ignore := func(error) {}
	c.Add(&commit.Write{Run: func(core.App) error {
		close(began)
		<-held
		return nil
	}, Done: ignore})
	<-began
	for range commit.MaxWaiting {
		c.Add(&commit.Write{Run: func(core.App) error { return nil }, Done: ignore})
	}
	return func() { close(held) }
}
