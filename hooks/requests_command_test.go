package hooks

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

func TestRequestsCommand(t *testing.T) {
	t.Parallel()
	app, p := newTestApp(t, Config{})
	collection := mustFindCollection(t, app, store.Requests)
	for i, row := range []struct {
		state, userId, input, reason string
	}{
		{store.Failed, "user00000000001", `{"messages":[{"role":"user","content":"first"},{"role":"user","content":"a lighthouse\nand\ttabs"}]}`, "it\nfailed"},
		{store.Answered, "user00000000002", `{"messages":[{"role":"user","content":[{"type":"text","text":"parts"}]}]}`, ""},
		{store.Sent, "user00000000001", `{"messages":{}}`, ""},
		{store.Queued, "", `{}`, ""},
	} {
		request := core.NewRecord(collection)
		request.Load(map[string]any{
			"id": "request0000000" + string(rune('1'+i)), "workflow": "story", "state": row.state, "userId": row.userId, "input": row.input, "error": row.reason,
		})
		request.SetRaw("created", store.DateTime(time.Date(2026, 1, 1+i, 10, 0, 0, 0, time.UTC)))
		if err := app.UnsafeWithoutHooks().SaveNoValidate(request); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name string
		args []string
		want string // the last digits of the ids
	}{
		{"newest first", nil, "4321"},
		{"failed ones", []string{"--state", "failed"}, "1"},
		{"open ones", []string{"--state", "open"}, "43"},
		{"of one user", []string{"--user", "user00000000001"}, "31"},
		{"since a date", []string{"--since", "2026-01-03"}, "43"},
		{"at most two", []string{"--limit", "2"}, "43"},
		{"all at once", []string{"--state", "open", "--user", "user00000000001", "--since", "2026-01-02", "--limit", "5"}, "3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			out := mustRun(t, p, append([]string{"requests"}, row.args...)...)
			got := ""
			for _, line := range strings.Split(strings.TrimSuffix(out, "\n"), "\n")[1:] {
				fields := strings.Split(line, "\t")
				if len(fields) != 8 {
					t.Fatalf("a line is not eight fields: %q", line)
				}
				got += fields[0][14:]
			}
			if got != row.want {
				t.Errorf("got %q, want %q in:\n%s", got, row.want, out)
			}
		})
	}
	out := mustRun(t, p, "requests", "--state", "failed")
	if !strings.HasSuffix(out, "\tstory\ta lighthouse and tabs\tit failed\n") {
		t.Errorf("question and error are not on the line of their request: %q", out)
	}
	var rows []map[string]any
	if err := json.Unmarshal([]byte(mustRun(t, p, "requests", "--json", "--user", "nobody")), &rows); err != nil || rows == nil || len(rows) != 0 {
		t.Errorf("got %v, %v, want an empty list", rows, err)
	}
	for flag, value := range map[string]string{"--state": "pending", "--since": "yesterday", "--limit": "0"} {
		if _, err := runCommand(p, "requests", flag, value); err == nil || !strings.Contains(err.Error(), flag+" ") {
			t.Errorf("%s %s: got %v, want an error about it", flag, value, err)
		}
	}
}
