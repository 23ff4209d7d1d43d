package hooks

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// ConfigFromEnv returns the configuration that the environment has, as the pocketriver
// binary reads it: MODELRIVER_WEBHOOK_SECRET, MODELRIVER_API_KEY, MODELRIVER_API_URL,
// MODELRIVER_CALLBACK_HOSTS, MODELRIVER_METRICS_TOKEN, MODELRIVER_PAYLOAD_RETENTION, a
// duration as in 168h, or 0 to keep none, REPLICA_URL, REPLICA_ACK and REPLICA_RETENTION, a
// duration too. A variable that is not set leaves the default.
//
// The error says which variable is not usable, and what to do. Such a Config may be
// registered all the same: [Register] has serve end with that error, and the commands
// that need the variable, while --help, migrate and the others work.
func ConfigFromEnv() (Config, error) {
	config := Config{
		WebhookSecrets: []string{os.Getenv("MODELRIVER_WEBHOOK_SECRET")},
		APIKey:         os.Getenv("MODELRIVER_API_KEY"),
		APIURL:         os.Getenv("MODELRIVER_API_URL"),
		MetricsToken:   os.Getenv("MODELRIVER_METRICS_TOKEN"),
		fromEnv:        true,
	}
	if hosts := os.Getenv("MODELRIVER_CALLBACK_HOSTS"); hosts != "" {
		config.CallbackHosts = []string{hosts}
	}
	config.PayloadRetention, config.envErr = parseRetention(os.Getenv("MODELRIVER_PAYLOAD_RETENTION"))
	if err := config.readReplica(); err != nil {
		config.envErr = err
	}
	config = config.tidy()
	_, _, err := config.withDefaults().protocol()
	return config, err
}

// parseRetention returns 0, the default, for an empty text.
func parseRetention(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, nil
	}
	retention, err := time.ParseDuration(text)
	if err != nil || retention < 0 {
		return 0, fmt.Errorf("MODELRIVER_PAYLOAD_RETENTION %q: set a duration in hours, as in 168h for 7 days, or 0 to keep no payloads", text)
	}
	if retention == 0 {
		return KeepNoPayloads, nil
	}
	return retention, nil
}

func (c *Config) readReplica() error {
	c.Replica, c.ReplicaAck = os.Getenv("REPLICA_URL"), os.Getenv("REPLICA_ACK")
	text := strings.TrimSpace(os.Getenv("REPLICA_RETENTION"))
	if text == "" {
		return nil
	}
	retention, err := time.ParseDuration(text)
	if err != nil || retention == 0 {
		return fmt.Errorf("REPLICA_RETENTION %q: set a duration in hours, as in 168h for 7 days, of a day at least", text)
	}
	c.ReplicaRetention = retention
	return nil
}

// tidy takes what environments and files add to a value from it: white space around it,
// and commas between several.
func (c Config) tidy() Config {
	if len(c.WebhookSecrets) == 1 && c.WebhookSecrets[0] == "" {
		c.WebhookSecrets = nil
	}
	c.WebhookSecrets = splitList(c.WebhookSecrets)
	c.CallbackHosts = splitList(c.CallbackHosts)
	c.APIKey = strings.TrimSpace(c.APIKey)
	c.APIURL = strings.TrimSpace(c.APIURL)
	c.MetricsToken = strings.TrimSpace(c.MetricsToken)
	c.Replica = strings.TrimSpace(c.Replica)
	c.ReplicaAck = strings.TrimSpace(c.ReplicaAck)
	return c
}

func splitList(values []string) []string {
	var items []string
	for _, value := range values {
		for item := range strings.SplitSeq(value, ",") {
			if trimmed := strings.TrimSpace(item); trimmed != "" { // a blank one is an error, not none
				item = trimmed
			}
			items = append(items, item)
		}
	}
	return items
}

// protocol returns what verifies webhooks, nil without a secret, and what sends
// callbacks. An error says which setting is not usable, and what to do.
func (c Config) protocol() (*modelriver.Verifier, *modelriver.Client, error) {
	fail := func(format string, args ...any) (*modelriver.Verifier, *modelriver.Client, error) {
		return nil, nil, fmt.Errorf(c.inWords(format), args...)
	}
	if c.envErr != nil {
		return nil, nil, c.envErr
	}
	if c.ReplicaAck != AckAsync && c.ReplicaAck != AckWait {
		return fail("REPLICA_ACK %q: use async or wait", c.ReplicaAck)
	}
	if c.ReplicaAck == AckWait && c.Replica == "" {
		return fail("REPLICA_ACK: wait needs REPLICA_URL, the replica to wait for")
	}
	if c.ReplicaRetention < 24*time.Hour {
		return fail("REPLICA_RETENTION %s: use a day at least, as in 168h for 7 days", c.ReplicaRetention)
	}
	for i, secret := range c.WebhookSecrets {
		switch {
		case strings.TrimSpace(secret) == "":
			return fail("MODELRIVER_WEBHOOK_SECRET: secret %d of %d is blank: take it away, or its comma", i+1, len(c.WebhookSecrets))
		case strings.ContainsFunc(secret, isControl):
			return fail("MODELRIVER_WEBHOOK_SECRET: secret %d of %d has a line break or another control character in it: set it as ModelRiver's console shows it, several separated by commas", i+1, len(c.WebhookSecrets))
		}
	}
	if strings.ContainsFunc(c.APIKey, func(r rune) bool { return r == ' ' || isControl(r) }) {
		return fail("MODELRIVER_API_KEY: the API key has white space or a control character in it: set it as ModelRiver's console shows it")
	}
	if n := len(c.MetricsToken); n > 0 && (n < minMetricsToken || strings.ContainsFunc(c.MetricsToken, func(r rune) bool { return r == ' ' || isControl(r) })) {
		return fail("MODELRIVER_METRICS_TOKEN: use at least %d characters, without white space: anybody who guesses it reads the metrics", minMetricsToken)
	}
	options := modelriver.ClientOptions{APIURL: c.APIURL, Timeout: c.CallbackTimeout, HTTPClient: c.HTTPClient}
	if _, err := modelriver.NewClient(options); err != nil {
		return fail("MODELRIVER_API_URL: %w", err)
	}
	options.APIKey, options.Hosts = c.APIKey, c.CallbackHosts
	client, err := modelriver.NewClient(options)
	if err != nil {
		return fail("MODELRIVER_CALLBACK_HOSTS: %w", err)
	}
	if len(c.WebhookSecrets) == 0 {
		return nil, client, nil
	}
	verifier, err := modelriver.NewVerifier(c.WebhookSecrets...)
	if err != nil {
		return fail("MODELRIVER_WEBHOOK_SECRET: %w", err)
	}
	verifier.Tolerance = c.Tolerance
	return verifier, client, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

var fieldNames = strings.NewReplacer(
	"MODELRIVER_WEBHOOK_SECRET", "hooks.Config.WebhookSecrets",
	"MODELRIVER_API_KEY", "hooks.Config.APIKey",
	"MODELRIVER_API_URL", "hooks.Config.APIURL",
	"MODELRIVER_CALLBACK_HOSTS", "hooks.Config.CallbackHosts",
	"MODELRIVER_PAYLOAD_RETENTION", "hooks.Config.PayloadRetention",
	"MODELRIVER_METRICS_TOKEN", "hooks.Config.MetricsToken",
	"REPLICA_URL", "hooks.Config.Replica",
	"REPLICA_ACK", "hooks.Config.ReplicaAck",
	"REPLICA_RETENTION", "hooks.Config.ReplicaRetention",
)

// inWords returns a text that names settings by their variables as it fits this app: one
// that fills in its Config itself reads no such variable.
func (c Config) inWords(text string) string {
	if c.fromEnv {
		return text
	}
	return fieldNames.Replace(text)
}
