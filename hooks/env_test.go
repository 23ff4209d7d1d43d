package hooks

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

func TestConfigFromEnv(t *testing.T) { // not parallel: it sets the environment
	names := []string{"MODELRIVER_WEBHOOK_SECRET", "MODELRIVER_API_KEY", "MODELRIVER_API_URL", "MODELRIVER_CALLBACK_HOSTS", "MODELRIVER_PAYLOAD_RETENTION", "MODELRIVER_METRICS_TOKEN"}
	for _, row := range []struct {
		name    string
		env     [6]string // by names
		want    Config
		problem string
	}{
		{"nothing is set", [6]string{}, Config{}, ""},
		{"everything is set", [6]string{"s", "k", "https://example.com", "example.org:8443", "36h"},
			Config{WebhookSecrets: []string{"s"}, APIKey: "k", APIURL: "https://example.com", CallbackHosts: []string{"example.org:8443"}, PayloadRetention: 36 * time.Hour}, ""},
		{"white space around", [6]string{" s\r\n", "\tk\n", " https://example.com\n", "example.org \n", " 0\n"},
			Config{WebhookSecrets: []string{"s"}, APIKey: "k", APIURL: "https://example.com", CallbackHosts: []string{"example.org"}, PayloadRetention: KeepNoPayloads}, ""},
		{"lists", [6]string{"s, t,u\n", "", "", "a.example,b.example:1 , [::1]:2"},
			Config{WebhookSecrets: []string{"s", "t", "u"}, CallbackHosts: []string{"a.example", "b.example:1", "[::1]:2"}}, ""},
		{"a secret with a blank in it", [6]string{"correct horse"}, Config{WebhookSecrets: []string{"correct horse"}}, ""},
		{"a blank secret", [6]string{"\n"}, Config{WebhookSecrets: []string{"\n"}}, "MODELRIVER_WEBHOOK_SECRET: secret 1 of 1 is blank"},
		{"a comma at the end", [6]string{"s,"}, Config{WebhookSecrets: []string{"s", ""}}, "MODELRIVER_WEBHOOK_SECRET: secret 2 of 2 is blank"},
		{"secrets on lines", [6]string{"s,t\nu"}, Config{WebhookSecrets: []string{"s", "t\nu"}}, "MODELRIVER_WEBHOOK_SECRET: secret 2 of 2 has a line break"},
		{"a key on lines", [6]string{"", "k\nl"}, Config{APIKey: "k\nl"}, "MODELRIVER_API_KEY: "},
		{"a URL over plain http", [6]string{"", "", "http://example.com"}, Config{APIURL: "http://example.com"}, "MODELRIVER_API_URL: "},
		{"a host with a path", [6]string{"", "", "", "example.com/x"}, Config{CallbackHosts: []string{"example.com/x"}}, "MODELRIVER_CALLBACK_HOSTS: "},
		{"no payloads, with a unit", [6]string{4: "0s"}, Config{PayloadRetention: KeepNoPayloads}, ""},
		{"days", [6]string{4: "7d"}, Config{}, `MODELRIVER_PAYLOAD_RETENTION "7d": set a duration in hours, as in 168h`},
		{"a negative duration", [6]string{4: "-1ns"}, Config{}, "MODELRIVER_PAYLOAD_RETENTION "},
		{"a number alone", [6]string{4: "7"}, Config{}, "MODELRIVER_PAYLOAD_RETENTION "},
		{"a token for metrics", [6]string{5: " 0123456789abcdef\n"}, Config{MetricsToken: "0123456789abcdef"}, ""},
		{"a short token for metrics", [6]string{5: "0123456789abcde"}, Config{MetricsToken: "0123456789abcde"}, "MODELRIVER_METRICS_TOKEN: use at least 16 characters"},
		{"a token for metrics with a blank", [6]string{5: "01234567 89abcdef"}, Config{MetricsToken: "01234567 89abcdef"}, "MODELRIVER_METRICS_TOKEN: use at least 16 characters"},
		{"a blank host", [6]string{"", "", "", " "}, Config{CallbackHosts: []string{" "}}, "MODELRIVER_CALLBACK_HOSTS: "},
	} {
		for i, name := range names {
			t.Setenv(name, row.env[i])
		}
		got, err := ConfigFromEnv()
		if row.problem == "" && err != nil || row.problem != "" && (err == nil || !strings.HasPrefix(err.Error(), row.problem)) {
			t.Errorf("%s: got error %v, want %q", row.name, err, row.problem)
		}
		row.want.fromEnv, row.want.envErr = true, got.envErr
		if !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: got %+v, want %+v", row.name, got, row.want)
		}
		// What is registered is refused for the same reason, and not by Register.
		app := apptest.NewApp(t)
		p, newErr := newPlugin(app, got)
		if newErr != nil || (p.unusable == nil) != (err == nil) || err != nil && p.unusable.Error() != err.Error() {
			t.Errorf("%s: registered: got %v and %v, want %v when it serves", row.name, newErr, p.unusable, err)
		}
	}
	t.Setenv("MODELRIVER_PAYLOAD_RETENTION", "7d") // whoever sets it in code needs no variable
	got, _ := ConfigFromEnv()
	got.PayloadRetention, got.CallbackHosts = time.Hour, nil
	if _, _, err := got.withDefaults().protocol(); err != nil {
		t.Errorf("set in code: got %v", err)
	}
}

func TestRegisterTwiceReplacesCommands(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	root := &cobra.Command{Use: "app"}
	MustRegister(app, root, Config{})
	MustRegister(app, root, testConfig())
	var names []string
	for _, command := range root.Commands() {
		names = append(names, command.Name())
	}
	if !slices.Equal(names, []string{"modelriver", "restore"}) {
		t.Errorf("commands: got %v", names)
	}
}
