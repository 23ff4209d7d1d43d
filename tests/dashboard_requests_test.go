package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// takesByWorkflow stands in for ModelRiver: the workflow's name says how it answers a request.
func takesByWorkflow(t testing.TB) *httptest.Server {
	t.Helper()
	modelriver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Workflow  string
			RequestID string `json:"request_id"`
		}
		_ = json.NewDecoder(r.Body).Decode(&body)
		switch body.Workflow {
		case "taken":
			fmt.Fprintf(w, `{"channel_id":"c-%s"}`, body.RequestID)
		case "busy":
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusServiceUnavailable)
		case "refused":
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"error":{"message":"messages are missing"}}`)
		default:
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	t.Cleanup(modelriver.Close)
	return modelriver
}

// ask creates a request of the workflow and returns its id.
func (s *server) ask(token, workflow, user string) string {
	s.t.Helper()
	var request struct{ ID string }
	s.API(token, http.MethodPost, "/api/collections/aiRequests/records", map[string]any{"workflow": workflow, "input": map[string]any{}, "userId": user}, &request)
	return request.ID
}

// dashboardRequest is the JavaScript expression of the line of the latest request of the
// workflow in the list ("open" or "failed").
func dashboardRequest(list, workflow string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(".modelriver-requests-%s .list-item")].find((r) => r.querySelector(".modelriver-open")?.textContent === %q)`, list, workflow)
}

// press presses the button in a list of requests, and answers the question that follows,
// both with the keyboard. It returns the question.
func (p *tab) press(label, answer string) string {
	p.t.Helper()
	p.Type(fmt.Sprintf(`.modelriver-lists button[aria-label=%q]`, label), "\r")
	p.Wait(`[...document.querySelectorAll(".modal button")].some((b) => b.innerText === "` + answer + `" && b.checkVisibility())`)
	question := eval[string](p, `document.querySelector(".modal.popup h6").innerText`)
	eval[any](p, `[...document.querySelectorAll(".modal.popup button")].find((b) => b.innerText === "`+answer+`").id = "answer";0`)
	p.Type("#answer", "\r")
	p.Wait(`!document.querySelector("#answer")?.checkVisibility()`)
	eval[any](p, `document.querySelector("#answer").id = "";0`)
	return question
}

// Who never asks sees nothing of requests. Who does sees those that wait and those that
// failed, and cancels the ones and asks the others again.
func TestDashboardShowsRequests(t *testing.T) {
	t.Parallel()
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js") // of npm ci
	s := startServer(t, "", "MODELRIVER_API_URL="+takesByWorkflow(t).URL)
	token := s.Superuser()
	user := s.user(token, "asker@example.com")
	p := openDashboard(t, s)
	p.Wait(figure("Received today") + ` === "0"`)
	if text := eval[string](p, `document.querySelector(".modelriver").innerText`); strings.Contains(strings.ToLower(text), "request") {
		t.Errorf("requests are shown where nobody asks: %s", text)
	}

	taken := s.ask(token, "taken", user)
	busy := s.ask(token, "busy", user)
	s.ask(token, "refused", "")
	s.ask(token, "cut", user)
	p.Wait(figure("Open requests") + ` === "2" && ` + figure("Failed requests") + ` === "2" && ` + figure("Median answer") + ` === "–"`)
	for line, wants := range map[string][]string{
		dashboardRequest("open", "taken"):     {"sent", "user " + user, "1 attempt"},
		dashboardRequest("open", "busy"):      {"queued", "user " + user, "1 attempt"},
		dashboardRequest("failed", "refused"): {"failed", "no user", "1 attempt", "messages are missing"},
		dashboardRequest("failed", "cut"):     {"failed", "user " + user, "It is not known whether ModelRiver took the request"},
	} {
		for _, want := range append(wants, ":") { // of the time
			p.Wait(line + fmt.Sprintf(`?.innerText.includes(%q)`, want))
		}
	}
	if text := eval[string](p, `document.querySelector(".modelriver").innerText`); strings.Contains(text, "false") || strings.Contains(text, "undefined") {
		t.Errorf("the page says %s", text)
	}
	checkDashboard(p, axe, "requests")
	p.Size(390, 860)
	eval[any](p, `document.querySelector(".modelriver-requests-open").scrollIntoView();0`)
	p.Screenshot("dashboard-requests-lists-390")
	p.Size(1280, 860)

	// Questions say what they may cost; who answers no changes nothing.
	for _, row := range []struct{ label, no, want string }{
		{"Ask refused again", "Leave it", "did not take it before"},
		{"Ask cut again", "Leave it", "Nobody knows whether ModelRiver took this request"},
		{"Cancel taken", "Let it go on", "costs what it costs"},
		{"Cancel busy", "Let it go on", "It is not sent then"},
	} {
		if got := p.press(row.label, row.no); !strings.Contains(got, row.want) {
			t.Errorf("%s: asked %q, want %q", row.label, got, row.want)
		}
	}
	if n := p.Requests("PATCH /api/collections/aiRequests"); n != 0 {
		t.Errorf("%d requests are changed though the answer was no", n)
	}

	// Cancel both open ones; the one that was sent is answered all the same.
	p.Type(`button[aria-label="Cancel taken"]`, "\r")
	p.Wait(`document.querySelector(".modal.popup h6")?.checkVisibility()`)
	p.Screenshot("dashboard-requests-question")
	p.Click(".modal.popup .btn.warning")
	p.Wait(dashboardRequest("failed", "taken") + `?.innerText.includes("cancelled the request after it was sent")`)
	p.press("Cancel busy", "Cancel it")
	p.Wait(dashboardRequest("failed", "busy") + `?.innerText.includes("cancelled the request before ModelRiver took it")`)
	p.Wait(figure("Open requests") + ` === "0" && document.querySelector(".modelriver-requests-open").innerText.includes("No request waits")`)
	if got := p.press("Ask taken again", "Leave it"); !strings.Contains(got, "costs a second time") {
		t.Errorf("asked %q", got)
	}
	s.mustSend(payload("c-"+taken, "The answer", ""))
	p.Wait(figure("Failed requests") + ` === "3" && ` + figure("Median answer") + ` !== "–"`)
	p.Wait(dashboardItem("The answer"))

	p.press("Ask busy again", "Ask again")
	p.Wait(dashboardRequest("open", "busy"))
	p.Wait(figure("Open requests") + ` === "1" && ` + figure("Failed requests") + ` === "2"`)
	status, stderr, ok := runOn(t, s.binary, s.Dir, s.env, "modelriver", "status")
	if !ok || !strings.Contains(status, "open requests      1") || !strings.Contains(status, "failed requests    2") {
		t.Errorf("status: got %s %s, want the same figures", status, stderr)
	}
	if out, stderr, ok := runOn(t, s.binary, s.Dir, s.env, "modelriver", "cancel", busy); !ok || !strings.Contains(out, busy+": The operator") {
		t.Errorf("cancel: got %s %s", out, stderr)
	}
	p.Wait(dashboardRequest("failed", "busy") + ` && ` + figure("Open requests") + ` === "0"`)

	// The link leads to the record.
	eval[any](p, dashboardRequest("failed", "cut")+`.querySelector("a").click();0`)
	p.Wait(`location.hash.startsWith("#/collections?collection=aiRequests")`)
	p.Wait(`document.querySelector(".modal [name=workflow]")?.value === "cut"`)
	p.Screenshot("dashboard-request-record")
	p.Clean(true)
}

// The server compares what the operator has seen with what is: of two who ask again, or of
// one whose list is old, one request is paid.
func TestDashboardAsksAgainWhatItShows(t *testing.T) {
	t.Parallel()
	s := startServer(t, "", "MODELRIVER_API_URL="+takesByWorkflow(t).URL)
	token := s.Superuser()
	id := s.ask(token, "cut", "")
	p := openDashboard(t, s)
	p.Wait(dashboardRequest("failed", "cut"))
	p.Offline(true) // so that the list stays what it is
	s.mustSend(fmt.Appendf(nil, `{"type":"task.completed","channel_id":"late","data":{"title":"Late"},"customer_data":{"request_id":%q}}`, id))
	p.Type(`button[aria-label="Ask cut again"]`, "\r")
	p.Wait(`[...document.querySelectorAll(".modal button")].some((b) => b.innerText === "Ask again" && b.checkVisibility())`)
	p.Offline(false)
	p.Click(".modal .btn.warning")
	p.Wait(`document.body.innerText.includes("has changed meanwhile") || document.body.innerText.includes("is asked again.")`)
	var request struct{ State string }
	s.API(token, http.MethodGet, "/api/collections/aiRequests/records/"+id, nil, &request)
	if request.State != "answered" {
		t.Errorf("the request is %s, want it answered still", request.State)
	}
}

// What does not fit is counted, and a link leads to all of it.
func TestDashboardCountsMoreRequests(t *testing.T) {
	t.Parallel()
	s := startServer(t, "", "MODELRIVER_API_URL="+takesByWorkflow(t).URL)
	token := s.Superuser()
	for range 23 {
		s.ask(token, "refused", "")
	}
	s.ask(token, "taken", "")
	p := openDashboard(t, s)
	p.Wait(figure("Failed requests") + ` === "23"`)
	p.Wait(`document.querySelector(".modelriver-requests-failed .modelriver-more")?.innerText === "The latest 20 of 23: see all in a new tab"`)
	if eval[bool](p, `!!document.querySelector(".modelriver-requests-open .modelriver-more")`) {
		t.Error("there is a link to more open requests, of which there are none")
	}
	// A line that does not change keeps the focus.
	eval[any](p, `document.querySelector(".modelriver-requests-failed button").focus();0`)
	s.ask(token, "refused", "")
	p.Wait(`document.querySelector(".modelriver-more")?.innerText === "The latest 20 of 24: see all in a new tab"`)
	p.Wait(`document.activeElement.matches(".modelriver-requests-failed .list-item:nth-child(2) button")`)
	all := p.Another(eval[string](p, `document.querySelector("a.modelriver-more[target=_blank]").href`))
	all.Wait(`document.body.innerText.split("messages are missing").length === 25 && !document.body.innerText.includes("taken")`)
	p.Clean(true)
}
