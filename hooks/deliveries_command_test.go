package hooks

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

func TestDeliveriesCommand(t *testing.T) {
	t.Parallel()
	s := newDeliveriesServer(t)
	// And a record for which no callback was owed.
	s.mustPost(t, generated("quiet", `{"title":"Quiet\twater"}`, ""))
	for _, row := range []struct {
		args []string
		want string // the titles, the newest first
	}{
		{nil, "Quiet water,*,*"},
		{[]string{"--limit", "1"}, "Quiet water"},
		{[]string{"--state", "delivered"}, "The River"},
		{[]string{"--state", "failed"}, "Refuse the 100% river"},
		{[]string{"--state", "refused", "--event", "new_content"}, "Refuse the 100% river"},
		{[]string{"--state", "waiting"}, ""},
		{[]string{"--state", "pending"}, ""},
		{[]string{"--category", "stored"}, "The River"},
		{[]string{"--user", "u1", "--search", "the river"}, "The River"},
		{[]string{"--search", "quiet"}, "Quiet water"},
		{[]string{"--since", "1h", "--event", "none"}, ""},
		{[]string{"--until", "1h"}, ""},
	} {
		out := mustRun(t, s.plugin, append([]string{"deliveries"}, row.args...)...)
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		want := strings.Split(row.want, ",")
		if row.want == "" {
			want = nil
		}
		if lines[0] != "ID\tSTATE\tTRIES\tHTTP\tCREATED\tNEXT\tERROR\tTITLE\tEVENT\tCATEGORY\tUSER\tCHANNEL" || len(lines) != len(want)+1 {
			t.Errorf("%q: got\n%s", row.args, out)
			continue
		}
		for i, title := range want {
			if fields := strings.Split(lines[i+1], "\t"); len(fields) != 12 || title != "*" && fields[7] != title {
				t.Errorf("%q: got %q, want 12 fields with %q", row.args, fields, title)
			}
		}
	}

	var items []map[string]any
	out := mustRun(t, s.plugin, "deliveries", "--json", "--state", "refused")
	if err := json.Unmarshal([]byte(out), &items); err != nil || len(items) != 1 || items[0]["title"] != "Refuse the 100% river" {
		t.Errorf("--json: got %v %s", err, out)
	}
	if out := mustRun(t, s.plugin, "deliveries", "--json", "--event", "none"); out != "[]\n" {
		t.Errorf("--json of nothing: got %q", out)
	}
	for flag, value := range map[string]string{"--state": "gone", "--since": "yesterday", "--until": "tomorrow", "--limit": "0"} {
		_, err := runCommand(s.plugin, "deliveries", flag, value)
		wantError(t, err, flag+" ")
	}
	_, err := runCommand(s.plugin, "deliveries", "--payload")
	wantError(t, err, "name the delivery")
}

// What read the output of callbacks before it was called deliveries must read on.
func TestCallbacksIsAnAlias(t *testing.T) {
	t.Parallel()
	s := newDeliveriesServer(t)
	s.mustPost(t, generated("quiet", `{"title":"Quiet"}`, ""))
	out := mustRun(t, s.plugin, "callbacks")
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	states := map[string]bool{}
	for _, line := range lines[1:] {
		fields := strings.Split(line, "\t")
		if len(fields) != 7 {
			t.Fatalf("got %q, want 7 fields", fields)
		}
		states[fields[1]] = true
	}
	if lines[0] != "ID\tSTATE\tTRIES\tHTTP\tCREATED\tNEXT\tERROR" || len(lines) != 3 || !states[store.Failed] || !states[store.Delivered] {
		t.Errorf("got, of a delivered, a refused and one without a callback:\n%s", out)
	}
}

func TestDeliveryCommand(t *testing.T) {
	t.Parallel()
	s := newDeliveriesServer(t)
	stored, refused := only(t, s, store.Content).Id, ""
	for _, row := range records(t, s, store.Callbacks) {
		if row.Id != stored {
			refused = row.Id
		}
	}
	wantLines(t, mustRun(t, s.plugin, "deliveries", stored), `^delivery +`+stored+`$`, `^state +delivered$`, `^title +The River$`, `^channel +stored$`,
		`^record +`+stored+`$`, `^payload +\d+ bytes, signed in the scheme body: --payload prints it$`, `^callback +http.*/stored$`, `^delivered +20.*, after [\d.]+m?s$`,
		`^ATTEMPT +HTTP +TOOK +SENT$`, `^20\d\d-.{14} +200 +\d+ms  callback$`)
	wantLines(t, mustRun(t, s.plugin, "deliveries", refused), `^state +refused$`, `^record +none$`, `^Last error:$`, `^  refused: not this one`, `ms  error callback$`)

	payload := mustRun(t, s.plugin, "deliveries", stored, "--payload")
	if !strings.HasPrefix(payload, `{"type":"task.ai_generated"`) || !strings.HasSuffix(payload, `"user_id":"u1"}}`) {
		t.Errorf("--payload: got %q", payload)
	}
	var whole store.WholeDelivery
	out := mustRun(t, s.plugin, "deliveries", stored, "--json")
	if err := json.Unmarshal([]byte(out), &whole); err != nil || whole.Delivery.Id != stored || *whole.Payload != payload || len(whole.Timeline) != 1 {
		t.Errorf("--json: got %v %s", err, out)
	}

	for _, row := range []struct{ args, remedy string }{
		{"nope", `nope: there is no such delivery: "modelriver deliveries" lists them, with --search by channel id too`},
		{stored + " --state failed", "--state: is for the list"},
		{stored + " --limit 3", "--limit: is for the list"},
		{stored + " --json --payload", "give one of them"},
		{stored + " " + refused, "accepts at most 1 arg"},
	} {
		_, err := runCommand(s.plugin, append([]string{"deliveries"}, strings.Fields(row.args)...)...)
		wantError(t, err, row.remedy)
	}
	if _, err := s.AuxNonconcurrentDB().NewQuery("DELETE FROM modelriverPayloads").Execute(); err != nil {
		t.Fatal(err)
	}
	_, err := runCommand(s.plugin, "deliveries", stored, "--payload")
	wantError(t, err, "its payload is not kept")

	deleteCollection(t, s, store.Attempts) // as beside a server of before
	_, err = runCommand(s.plugin, "deliveries", stored)
	wantError(t, err, `restart the server with this one. Until then "modelriver deliveries --search `+stored+`"`)
	if out := mustRun(t, s.plugin, "deliveries", "--search", stored); !strings.Contains(out, "\n"+stored+"\t") {
		t.Errorf("--search: got %s", out)
	}
}
