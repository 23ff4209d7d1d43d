package cli

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/simulator"
)

// checkAPI finds out whether callbacks can reach ModelRiver, and compares the clocks.
func (c *commands) checkAPI(ctx context.Context, _ *url.URL) []Finding {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	started := time.Now()
	response, err := fetch(ctx, c.options.APIURL)
	if err != nil {
		return []Finding{
			{"API", gradeProblem, fmt.Sprintf("%s cannot be reached: %s", c.options.APIURL, err),
				"Callbacks go there. Check DNS, the firewall and HTTPS_PROXY, and MODELRIVER_API_URL if it is set."},
			{"clock", gradeWarning, "not compared, for want of the API's", "Make sure that the machine keeps its time by NTP."},
		}
	}
	took := time.Since(started)
	response.Body.Close()
	findings := []Finding{{"API", gradeOK, fmt.Sprintf("%s answers in %s", c.options.APIURL, shown(took)), ""}}

	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return append(findings, Finding{"clock", gradeWarning, "not compared: the API does not say what time it is", "Make sure that the machine keeps its time by NTP."})
	}
	skew := started.Add(took / 2).Sub(date)
	if skew.Abs() > maxClockSkew {
		return append(findings, Finding{"clock", gradeProblem, fmt.Sprintf("is %s off, if the API's is right", skew.Round(time.Second)),
			"Times of records and callbacks are wrong, and certificates may be refused. Switch NTP on."})
	}
	return append(findings, Finding{"clock", gradeOK, "agrees with the API's", ""})
}

// checkWebhook posts a signed webhook without AI data: the server answers it, logs it
// and stores nothing.
func (c *commands) checkWebhook(ctx context.Context, target *url.URL) []Finding {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	secret, signed := "not-the-secret", false
	if len(c.options.WebhookSecrets) > 0 {
		secret, signed = c.options.WebhookSecrets[0], true
	}
	s := &simulator.Sender{Secret: secret, Scheme: "body", URL: target.String(), HTTP: &http.Client{CheckRedirect: simulator.NoRedirect}}
	a, err := s.Post(ctx, []byte(`{"type":"doctor"}`), nil)
	switch {
	case err != nil:
		return []Finding{{"webhook", gradeProblem, err.Error(),
			"Start the server, or give its address with --url. Behind a proxy, check the proxy first."}}
	case a.Status == http.StatusOK && strings.Contains(string(a.Body), `"received"`):
		return []Finding{{"webhook", gradeOK, fmt.Sprintf("%s answers in %s", target.Redacted(), a.Took), ""}}
	case a.Status == http.StatusUnauthorized && !signed:
		return []Finding{{"webhook", gradeWarning, target.Redacted() + " has a secret; this command has none to try",
			"Run the doctor with the server's MODELRIVER_WEBHOOK_SECRET to compare them."}}
	case a.Status == http.StatusUnauthorized:
		return []Finding{{"webhook", gradeProblem, target.Redacted() + " has another secret than this command",
			"Set the same MODELRIVER_WEBHOOK_SECRET for both and restart the server. If it is the same, something between changes the body: a proxy must pass it on byte for byte. Docker keeps the quotes of an --env-file."}}
	case a.Status == http.StatusTooManyRequests:
		return []Finding{{"webhook", gradeProblem, fmt.Sprintf("answered 429: %s", a.Excerpt()),
			"A rate limit of PocketBase or of the proxy refuses webhooks: exempt the path from it."}}
	case a.Status == http.StatusServiceUnavailable:
		return []Finding{{"webhook", gradeProblem, fmt.Sprintf("answered 503: %s", a.Excerpt()),
			"If that is about the secret: the server was started without MODELRIVER_WEBHOOK_SECRET. Set it and restart."}}
	}
	return []Finding{{"webhook", gradeProblem, fmt.Sprintf("answered %d: %s", a.Status, a.Excerpt()),
		"That was not this plugin. Check the host and the path in --url, and that a proxy passes POST on to the server."}}
}

// checkLive opens a realtime connection, as a page does, and waits for its first event.
func (c *commands) checkLive(ctx context.Context, target *url.URL) []Finding {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	live := *target
	live.Path, live.RawPath, live.RawQuery = "/api/realtime", "", ""
	if prefix, ok := strings.CutSuffix(target.Path, c.options.Path); ok { // a proxy may have the app below one
		live.Path = prefix + live.Path
	}
	address := live.Redacted()
	started := time.Now()
	response, err := fetch(ctx, live.String())
	if err != nil {
		return []Finding{{"live", gradeProblem, err.Error(), "Pages get no new records. Start the server, or give its address with --url."}}
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "event:PB_CONNECT") {
			return []Finding{{"live", gradeOK, fmt.Sprintf("%s streams, first event in %s", address, shown(time.Since(started))), ""}}
		}
	}
	if ctx.Err() != nil {
		return []Finding{{"live", gradeProblem, fmt.Sprintf("%s sends no event within %s", address, doctorTimeout),
			"A proxy holds the stream back, so pages are not live. Switch its buffering off: for nginx, proxy_buffering off."}}
	}
	return []Finding{{"live", gradeProblem, fmt.Sprintf("%s answered %s without an event", address, response.Status),
		"Pages get no new records. Check that the proxy passes /api/realtime on to the server, and that no rate limit refuses it."}}
}

// fetch is a GET whose error does not repeat the URL, and that follows no redirect.
func fetch(ctx context.Context, address string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{CheckRedirect: simulator.NoRedirect}
	response, err := client.Do(request)
	if err != nil {
		return nil, simulator.WithoutURL(err)
	}
	return response, nil
}
