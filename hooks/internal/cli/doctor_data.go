package cli

import (
	"fmt"
	"net/http"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/disk"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// checkOpened is checkCollections for a command, which may come before any server.
func (c *commands) checkOpened() []Finding {
	if err := c.openData(); err != nil {
		return []Finding{{"collections", gradeProblem, err.Error(), "Webhooks are answered 503 until that is mended."}}
	}
	return c.checkCollections()
}

// checkCollections finds out whether webhooks can be stored, durably, and who sees them.
func (c *commands) checkCollections() []Finding {
	if err := store.SchemaProblem(c.app); err != nil {
		return []Finding{{"collections", gradeProblem, err.Error(), "Webhooks are answered 503 until that is mended."}}
	}
	findings := []Finding{{"collections", gradeOK, "complete, in " + c.app.DataDir(), ""}}
	findings = append(findings, c.checkRules()...)

	if c.options.Several {
		return append(findings, Finding{"durability", gradeOK, "what is answered 200 is on the disks of most of the nodes", ""})
	}
	var synchronous int
	if err := c.app.NonconcurrentDB().NewQuery("PRAGMA synchronous").Row(&synchronous); err != nil {
		return append(findings, Finding{"durability", gradeProblem, err.Error(), "The database cannot be written."})
	}
	if synchronous < 2 {
		return append(findings, Finding{"durability", gradeWarning, "synchronous=NORMAL or OFF",
			"A power failure can undo webhooks that were answered 200. Set pocketbase.Config.DBConnect to hooks.DBConnect."})
	}
	return append(findings, Finding{"durability", gradeOK, "synchronous=FULL: what is answered 200 is on disk", ""})
}

// checkOwnRules finds out who sees what is for superusers only.
func (c *commands) checkOwnRules() (findings []Finding) {
	for _, own := range []struct{ collection, rows, because string }{
		{store.Callbacks, "callbacks", "They hold what ModelRiver sent, private content too."},
		{store.Channels, "channels", "They decide whose an answer is."},
		{store.Attempts, "attempts", "They hold what ModelRiver answered."},
		{store.Rejections, "rejections", "They tell how this server is attacked."},
	} {
		collection, err := c.app.FindCollectionByNameOrId(own.collection)
		if err != nil {
			continue // of those that are needed, all are there
		}
		for _, r := range rulesOf(collection) {
			if r.rule != nil {
				findings = append(findings, Finding{"rules", gradeProblem, fmt.Sprintf("others than superusers may %s %s", r.verb, own.rows),
					fmt.Sprintf("%s Clear the %s rule of %s in the dashboard.", own.because, r.verb, own.collection)})
			}
		}
	}
	return findings
}

func (c *commands) checkRules() []Finding {
	content, err := c.app.FindCollectionByNameOrId(store.Content)
	if err != nil {
		return []Finding{{"rules", gradeProblem, err.Error(), ""}}
	}
	findings := c.checkOwnRules()
	add := func(g grade, text, remedy string) {
		findings = append(findings, Finding{"rules", g, text, remedy})
	}
	for _, r := range rulesOf(content) {
		switch r.verb {
		case "list", "view":
			if r.rule == nil {
				add(gradeWarning, fmt.Sprintf("only superusers may %s content, so pages show none", r.verb),
					fmt.Sprintf("If that is not meant, set the %s rule of %s in the dashboard.", r.verb, store.Content))
			} else if *r.rule == "" {
				var private bool
				err := c.app.ConcurrentDB().NewQuery("SELECT EXISTS (SELECT 1 FROM aiContent WHERE userId > '')").Row(&private)
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
func (c *commands) checkLimits() []Finding {
	limits := c.app.Settings().RateLimits
	label := http.MethodPost + " " + c.options.Path
	rule, ok := limits.FindRateLimitRule([]string{label, c.options.Path}, core.RateLimitRuleAudienceAll, core.RateLimitRuleAudienceGuest)
	if !limits.Enabled || !ok {
		return []Finding{{"limits", gradeOK, "no rate limit for webhooks", ""}}
	}
	return []Finding{{"limits", gradeWarning, fmt.Sprintf("the rule %q takes %s in %ds from one address, webhooks too", rule.Label, english.Plural(rule.MaxRequests, "request", ""), rule.Duration),
		fmt.Sprintf("More are answered 429, and ModelRiver sends those again later. In the dashboard, Settings, Application, Rate limiting, add a rule %q that takes as many as come, or name ModelRiver's addresses under Excluded IPs.", label)}}
}

type namedRule struct {
	verb string
	rule *string
}

func rulesOf(c *core.Collection) []namedRule {
	return []namedRule{{"list", c.ListRule}, {"view", c.ViewRule}, {"create", c.CreateRule}, {"update", c.UpdateRule}, {"delete", c.DeleteRule}}
}

func (c *commands) checkDisk() []Finding {
	free, err := disk.Free(c.app.DataDir())
	if err != nil {
		return []Finding{{"disk", gradeWarning, "unknown: " + err.Error(), "Make sure that there is space."}}
	}
	text := humanize.IBytes(free) + " free for " + c.app.DataDir()
	if free < minFree {
		return []Finding{{"disk", gradeProblem, text,
			"When it is full, webhooks are answered 503. Make room: old backups and log rows go first."}}
	}
	return []Finding{{"disk", gradeOK, text, ""}}
}
