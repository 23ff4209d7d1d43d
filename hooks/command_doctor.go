package hooks

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// Limits of what the doctor takes for healthy.
const (
	doctorTimeout = 10 * time.Second
	minSecret     = 16      // characters
	minFree       = 1 << 30 // bytes on the disk of the data
	maxClockSkew  = 30 * time.Second
)

const quotesRemedy = "They count as a part of it, so what it is compared with differs: the answer is 401. Docker keeps the quotes of an --env-file, where a shell and systemd take them away. Write the value without them."

// A finding is what one check of the doctor saw.
type finding struct {
	check  string
	grade  grade
	text   string
	remedy string // empty if all is well
}

type grade string

const (
	gradeOK      grade = "ok"
	gradeWarning grade = "warning" // works, but should be known
	gradeProblem grade = "problem"
)

func (p *plugin) newDoctorCommand() *cobra.Command {
	var webhookURL string
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Checks the settings, the data and the way to ModelRiver and back",
		Long: `Checks the settings, the data and the way to ModelRiver and back, and says what to do
about each problem. It ends with status 1 if there is one.

Give it the server's environment, and with --url the address that ModelRiver has, to
check the proxy before the server too. It stores nothing: the webhook that it sends
carries no AI data. The server counts it as rejected if the secrets differ.`,
		Example: `  modelriver doctor
  modelriver doctor --url https://example.com/webhooks/modelriver`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(command.Context(), os.Interrupt)
			defer stop()
			target, err := url.Parse(webhookURL)
			if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
				return fmt.Errorf("--url %q: use the URL where webhooks are received", webhookURL)
			}
			problems := 0
			for _, check := range []func(ctx context.Context, target *url.URL) []finding{
				p.checkSettings, p.checkSecret, p.checkKey, p.checkAPI, p.checkWebhook, p.checkLive, p.checkCollections, p.checkLimits, p.checkDisk,
			} {
				for _, f := range check(ctx, target) {
					f.text, f.remedy = p.config.inWords(f.text), p.config.inWords(f.remedy)
					if f.grade == gradeProblem {
						problems++
					}
					if err := f.print(command.OutOrStdout()); err != nil {
						return err
					}
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
			if problems > 0 {
				return fmt.Errorf("%s found", count(problems, "problem"))
			}
			return nil
		},
	}
	command.Flags().StringVar(&webhookURL, "url", "http://127.0.0.1:8090"+p.config.Path, "where webhooks are received, as ModelRiver calls it")
	return command
}

func (f finding) print(out io.Writer) error {
	if _, err := fmt.Fprintf(out, "%-7s  %-11s  %s\n", f.grade, f.check, f.text); err != nil {
		return err
	}
	if f.remedy == "" {
		return nil
	}
	_, err := fmt.Fprintln(out, indentText(out, f.remedy))
	return err
}

func (p *plugin) checkSettings(context.Context, *url.URL) []finding {
	if p.unusable == nil {
		return nil
	}
	return []finding{{"settings", gradeProblem, p.unusable.Error(), "The server does not start with it."}}
}

func (p *plugin) checkSecret(context.Context, *url.URL) []finding {
	secrets := p.config.WebhookSecrets
	if len(secrets) == 0 {
		return []finding{{"secret", gradeProblem, "none is set",
			"Every webhook is answered 503. Set MODELRIVER_WEBHOOK_SECRET to the secret that ModelRiver's console shows for the webhook, and restart."}}
	}
	for _, secret := range secrets {
		if inQuotes(secret) {
			return []finding{{"secret", gradeProblem, "one is in quotes", quotesRemedy}}
		}
		if len(secret) < minSecret {
			return []finding{{"secret", gradeWarning, fmt.Sprintf("one is shorter than %d characters", minSecret),
				"Whoever guesses it can write into the database. Use the one that ModelRiver's console shows."}}
		}
	}
	return []finding{{"secret", gradeOK, count(len(secrets), "webhook secret"), ""}}
}

func (p *plugin) checkKey(context.Context, *url.URL) []finding {
	if p.config.APIKey == "" {
		return []finding{{"key", gradeProblem, "none is set",
			"Callbacks wait, and fail when their window ends. Set MODELRIVER_API_KEY to a project key of ModelRiver's console, and restart."}}
	}
	if inQuotes(p.config.APIKey) {
		return []finding{{"key", gradeProblem, "is in quotes", quotesRemedy}}
	}
	return []finding{{"key", gradeOK, "set; only ModelRiver can tell whether it is valid", ""}}
}

// checkAPI finds out whether callbacks can reach ModelRiver, and compares the clocks.
func (p *plugin) checkAPI(ctx context.Context, _ *url.URL) []finding {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	started := time.Now()
	response, err := get(ctx, p.config.APIURL)
	if err != nil {
		return []finding{
			{"API", gradeProblem, fmt.Sprintf("%s cannot be reached: %s", p.config.APIURL, err),
				"Callbacks go there. Check DNS, the firewall and HTTPS_PROXY, and MODELRIVER_API_URL if it is set."},
			{"clock", gradeWarning, "not compared, for want of the API's", "Make sure that the machine keeps its time by NTP."},
		}
	}
	took := time.Since(started)
	response.Body.Close()
	findings := []finding{{"API", gradeOK, fmt.Sprintf("%s answers in %s", p.config.APIURL, round(took)), ""}}

	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return append(findings, finding{"clock", gradeWarning, "not compared: the API does not say what time it is", "Make sure that the machine keeps its time by NTP."})
	}
	skew := started.Add(took / 2).Sub(date)
	if skew.Abs() > maxClockSkew {
		return append(findings, finding{"clock", gradeProblem, fmt.Sprintf("is %s off, if the API's is right", skew.Round(time.Second)),
			"Times of records and callbacks are wrong, and certificates may be refused. Switch NTP on."})
	}
	return append(findings, finding{"clock", gradeOK, "agrees with the API's", ""})
}

// checkWebhook posts a signed webhook without AI data: the server answers it, logs it
// and stores nothing.
func (p *plugin) checkWebhook(ctx context.Context, target *url.URL) []finding {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	secret, signed := "not-the-secret", false
	if len(p.config.WebhookSecrets) > 0 {
		secret, signed = p.config.WebhookSecrets[0], true
	}
	s := &sender{secret: secret, scheme: "body", url: target.String(), http: &http.Client{CheckRedirect: noRedirect}}
	a, err := s.post(ctx, []byte(`{"type":"doctor"}`), nil)
	switch {
	case err != nil:
		return []finding{{"webhook", gradeProblem, err.Error(),
			"Start the server, or give its address with --url. Behind a proxy, check the proxy first."}}
	case a.status == http.StatusOK && strings.Contains(string(a.body), `"received"`):
		return []finding{{"webhook", gradeOK, fmt.Sprintf("%s answers in %s", target.Redacted(), round(a.took)), ""}}
	case a.status == http.StatusUnauthorized && !signed:
		return []finding{{"webhook", gradeWarning, target.Redacted() + " has a secret; this command has none to try",
			"Run the doctor with the server's MODELRIVER_WEBHOOK_SECRET to compare them."}}
	case a.status == http.StatusUnauthorized:
		return []finding{{"webhook", gradeProblem, target.Redacted() + " has another secret than this command",
			"Set the same MODELRIVER_WEBHOOK_SECRET for both and restart the server. If it is the same, something between changes the body: a proxy must pass it on byte for byte. Docker keeps the quotes of an --env-file."}}
	case a.status == http.StatusTooManyRequests:
		return []finding{{"webhook", gradeProblem, fmt.Sprintf("answered 429: %s", excerpt(a.body)),
			"A rate limit of PocketBase or of the proxy refuses webhooks: exempt the path from it."}}
	case a.status == http.StatusServiceUnavailable:
		return []finding{{"webhook", gradeProblem, fmt.Sprintf("answered 503: %s", excerpt(a.body)),
			"If that is about the secret: the server was started without MODELRIVER_WEBHOOK_SECRET. Set it and restart."}}
	}
	return []finding{{"webhook", gradeProblem, fmt.Sprintf("answered %d: %s", a.status, excerpt(a.body)),
		"That was not this plugin. Check the host and the path in --url, and that a proxy passes POST on to the server."}}
}

// checkLive opens a realtime connection, as a page does, and waits for its first event.
func (p *plugin) checkLive(ctx context.Context, target *url.URL) []finding {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	live := *target
	live.Path, live.RawPath, live.RawQuery = "/api/realtime", "", ""
	if prefix, ok := strings.CutSuffix(target.Path, p.config.Path); ok { // a proxy may have the app below one
		live.Path = prefix + live.Path
	}
	address := live.Redacted()
	started := time.Now()
	response, err := get(ctx, live.String())
	if err != nil {
		return []finding{{"live", gradeProblem, err.Error(), "Pages get no new records. Start the server, or give its address with --url."}}
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "event:PB_CONNECT") {
			return []finding{{"live", gradeOK, fmt.Sprintf("%s streams, first event in %s", address, round(time.Since(started))), ""}}
		}
	}
	if ctx.Err() != nil {
		return []finding{{"live", gradeProblem, fmt.Sprintf("%s sends no event within %s", address, doctorTimeout),
			"A proxy holds the stream back, so pages are not live. Switch its buffering off: for nginx, proxy_buffering off."}}
	}
	return []finding{{"live", gradeProblem, fmt.Sprintf("%s answered %s without an event", address, response.Status),
		"Pages get no new records. Check that the proxy passes /api/realtime on to the server, and that no rate limit refuses it."}}
}

// checkCollections finds out whether webhooks can be stored, durably, and who sees them.
func (p *plugin) checkCollections(context.Context, *url.URL) []finding {
	if err := p.openData(); err != nil {
		return []finding{{"collections", gradeProblem, err.Error(), "Webhooks are answered 503 until that is mended."}}
	}
	if err := store.SchemaProblem(p.app); err != nil {
		return []finding{{"collections", gradeProblem, err.Error(), "Webhooks are answered 503 until that is mended."}}
	}
	findings := []finding{{"collections", gradeOK, "complete, in " + p.app.DataDir(), ""}}
	findings = append(findings, p.checkRules()...)

	var synchronous int
	if err := p.app.NonconcurrentDB().NewQuery("PRAGMA synchronous").Row(&synchronous); err != nil {
		return append(findings, finding{"durability", gradeProblem, err.Error(), "The database cannot be written."})
	}
	if synchronous < 2 {
		return append(findings, finding{"durability", gradeWarning, "synchronous=NORMAL or OFF",
			"A power failure can undo webhooks that were answered 200. Open data.db with synchronous=FULL (pocketbase.Config.DBConnect)."})
	}
	return append(findings, finding{"durability", gradeOK, "synchronous=FULL: what is answered 200 is on disk", ""})
}

func (p *plugin) checkRules() []finding {
	content, err := p.app.FindCollectionByNameOrId(store.Content)
	if err != nil {
		return []finding{{"rules", gradeProblem, err.Error(), ""}}
	}
	callbacks, err := p.app.FindCollectionByNameOrId(store.Callbacks)
	if err != nil {
		return []finding{{"rules", gradeProblem, err.Error(), ""}}
	}
	var findings []finding
	add := func(g grade, text, remedy string) {
		findings = append(findings, finding{"rules", g, text, remedy})
	}
	for _, r := range rulesOf(callbacks) {
		if r.rule != nil {
			add(gradeProblem, fmt.Sprintf("others than superusers may %s callbacks", r.verb),
				fmt.Sprintf("They hold what ModelRiver sent, private content too. Clear the %s rule of %s in the dashboard.", r.verb, store.Callbacks))
		}
	}
	for _, r := range rulesOf(content) {
		switch r.verb {
		case "list", "view":
			if r.rule == nil {
				add(gradeWarning, fmt.Sprintf("only superusers may %s content, so pages show none", r.verb),
					fmt.Sprintf("If that is not meant, set the %s rule of %s in the dashboard.", r.verb, store.Content))
			} else if *r.rule == "" {
				var private bool
				err := p.app.ConcurrentDB().NewQuery("SELECT EXISTS (SELECT 1 FROM aiContent WHERE userId > '')").Row(&private)
				if err != nil {
					add(gradeProblem, err.Error(), "The database cannot be read.")
				} else if private {
					add(gradeProblem, fmt.Sprintf("everybody may %s content that was made for one user", r.verb),
						fmt.Sprintf("Set the %s rule of %s to: userId = \"\" || userId = @request.auth.id", r.verb, store.Content))
				}
			}
		default:
			if r.rule != nil && *r.rule == "" {
				add(gradeProblem, fmt.Sprintf("everybody may %s content", r.verb),
					fmt.Sprintf("Clear the %s rule of %s in the dashboard: the plugin does not need it.", r.verb, store.Content))
			}
		}
	}
	if findings == nil {
		add(gradeOK, "content is seen by whom it is for, callbacks by superusers", "")
	}
	return findings
}

// checkLimits finds the rate limit that PocketBase would apply to webhooks.
func (p *plugin) checkLimits(context.Context, *url.URL) []finding {
	limits := p.app.Settings().RateLimits
	label := http.MethodPost + " " + p.config.Path
	rule, ok := limits.FindRateLimitRule([]string{label, p.config.Path}, core.RateLimitRuleAudienceAll, core.RateLimitRuleAudienceGuest)
	if !limits.Enabled || !ok {
		return []finding{{"limits", gradeOK, "no rate limit for webhooks", ""}}
	}
	return []finding{{"limits", gradeWarning, fmt.Sprintf("the rule %q takes %s in %ds from one address, webhooks too", rule.Label, count(rule.MaxRequests, "request"), rule.Duration),
		fmt.Sprintf("More are answered 429, and ModelRiver sends those again later. In the dashboard, Settings, Application, Rate limiting, add a rule %q that takes as many as come, or name ModelRiver's addresses under Excluded IPs.", label)}}
}

type namedRule struct {
	verb string
	rule *string
}

func rulesOf(c *core.Collection) []namedRule {
	return []namedRule{{"list", c.ListRule}, {"view", c.ViewRule}, {"create", c.CreateRule}, {"update", c.UpdateRule}, {"delete", c.DeleteRule}}
}

func (p *plugin) checkDisk(context.Context, *url.URL) []finding {
	free, err := diskFree(p.app.DataDir())
	if err != nil {
		return []finding{{"disk", gradeWarning, "unknown: " + err.Error(), "Make sure that there is space."}}
	}
	text := humanize.IBytes(free) + " free for " + p.app.DataDir()
	if free < minFree {
		return []finding{{"disk", gradeProblem, text,
			"When it is full, webhooks are answered 503. Make room: old backups and log rows go first."}}
	}
	return []finding{{"disk", gradeOK, text, ""}}
}

// get is a GET whose error does not repeat the URL, and that follows no redirect.
func get(ctx context.Context, address string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{CheckRedirect: noRedirect}
	response, err := client.Do(request)
	if err != nil {
		return nil, withoutURL(err)
	}
	return response, nil
}
