package hooks

import (
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		config   Config
		errorHas string
	}{
		{"zero", Config{}, ""},
		{"a secret from a variable that is not set", Config{WebhookSecrets: []string{""}}, ""},
		{"blank secret", Config{WebhookSecrets: []string{"a", " "}}, "secret 2 of 2 is blank"},
		{"path without slash", Config{Path: "hooks"}, "Path"},
		{"path with a wildcard", Config{Path: "/{any...}"}, "Path"},
		{"body beyond what fields hold", Config{MaxBodySize: 1 << 30}, "MaxBodySize"},
		{"negative window", Config{CallbackWindow: -time.Second}, "negative"},
		{"no payloads", Config{PayloadRetention: KeepNoPayloads}, ""},
		{"negative payload retention", Config{PayloadRetention: -time.Hour}, "PayloadRetention -1h0m0s: a duration cannot be negative; use KeepNoPayloads"},
		{"a replica for less than a day", Config{ReplicaRetention: time.Hour}, "hooks.Config.ReplicaRetention 1h0m0s: use a day at least"},
		{"negative replica retention", Config{ReplicaRetention: -time.Hour}, "hooks.Config.ReplicaRetention -1h0m0s"},
		{"a replica for a day", Config{ReplicaRetention: 24 * time.Hour}, ""},
		{"one of several nodes", Config{Node: &node{}}, ""},
		{"API over plain http", Config{APIURL: "http://api.modelriver.com"}, "only https"},
		{"API on loopback", Config{APIURL: "http://127.0.0.1:4000"}, ""},
		{"callback host with a path", Config{CallbackHosts: []string{"example.com/x"}}, "use host or host:port"},
		{"empty callback host", Config{CallbackHosts: []string{""}}, "use host or host:port"},
		{"API key with a line break", Config{APIKey: "a\nb"}, "API key"},
	} {
		app := apptest.NewApp(t)
		apiRouter, err := apis.NewRouter(app)
		if err != nil {
			t.Fatal(err)
		}
		if err = Register(app, nil, row.config); err == nil { // what the environment has is refused by serve
			err = app.OnServe().Trigger(&core.ServeEvent{App: app, Router: apiRouter})
		}
		if (err == nil) != (row.errorHas == "") || err != nil && !strings.Contains(err.Error(), row.errorHas) {
			t.Errorf("%s: got %v, want %q in it", row.name, err, row.errorHas)
		}
		if err != nil && strings.Contains(err.Error(), "a\nb") {
			t.Errorf("%s: the error shows the key", row.name)
		}
	}
}

func TestRegisterTwiceReplaces(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	app, _ := newTestApp(t, Config{})
	p, err := newPlugin(app, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	p.bind()
	server := serve(t, app, p)
	server.mustPost(t, generated("twice", `{}`, rec.callbackURL("twice")))
	awaitState(t, server, store.Delivered)
}

func TestRegisterOnATakenPath(t *testing.T) {
	t.Parallel()
	app, _ := newTestApp(t, Config{Path: "/api/health"})
	router, err := apis.NewRouter(app)
	if err != nil {
		t.Fatal(err)
	}
	event := &core.ServeEvent{App: app, Router: router}
	router.POST("/api/health", func(*core.RequestEvent) error { return nil })
	err = app.OnServe().Trigger(event, func(e *core.ServeEvent) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "set Config.Path") {
		t.Errorf("got %v, want an error that names Config.Path", err)
	}
}
