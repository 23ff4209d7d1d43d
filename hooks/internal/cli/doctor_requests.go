package cli

import (
	"fmt"

	"github.com/dustin/go-humanize/english"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// checkRequests finds out who may ask ModelRiver at the operator's cost, and how often.
func (c *commands) checkRequests() []Finding {
	requests, err := c.app.FindCollectionByNameOrId(store.Requests)
	if err != nil {
		return nil // the collections' own finding says it
	}
	var findings []Finding
	add := func(g grade, text, remedy string) { findings = append(findings, Finding{"asking", g, text, remedy}) }
	for _, r := range rulesOf(requests) {
		if r.verb != "create" && r.rule != nil && *r.rule == "" {
			add(gradeProblem, fmt.Sprintf("everybody may %s all requests", r.verb),
				fmt.Sprintf(`Set the %s rule of %s to: @request.auth.id != "" && userId = @request.auth.id`, r.verb, store.Requests))
		}
	}
	if requests.UpdateRule != nil {
		add(gradeProblem, "others than superusers may update requests, so they can have them sent again", "Clear the update rule of "+store.Requests+" in the dashboard.")
	}
	asking := store.ReadAsking(c.app)
	switch {
	case !asking.Open:
		add(gradeOK, "closed: only superusers create requests", "")
	case *asking.Rule == "":
		add(gradeWarning, "everybody may ask, signed in or not, and the answer to a guest is everybody's to read",
			fmt.Sprintf(`Set the create rule of %s to: @request.auth.id != ""`, store.Requests))
	case !asking.Limited:
		add(gradeWarning, "open without a limit: each request costs money",
			fmt.Sprintf(`In the dashboard, Settings, Application, Rate limiting, add a rule "%s:create"; or count in a hook.`, store.Requests))
	default:
		add(gradeOK, fmt.Sprintf("open, to %s in %ds from one address by the rule %q", english.Plural(asking.Limit.MaxRequests, "request", ""), asking.Limit.Duration, asking.Limit.Label), "")
	}
	return findings
}
