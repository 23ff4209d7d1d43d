package simulator

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
)

func TestLastQuestion(t *testing.T) {
	t.Parallel()
	for messages, want := range map[string]string{
		``:            "",
		`"A ferry"`:   "",
		`[]`:          "",
		`[1,null,{}]`: "",
		`[{"role":"system","content":"Be kind"}]`: "",
		`[{"role":"user","content":" A ferry "}]`: "A ferry",
		`[{"role":"user","content":"A ferry"},{"role":"assistant","content":"Yes"},{"role":"user","content":"And a lighthouse"}]`: "And a lighthouse",
		`[{"role":"user","content":"A ferry"},{"role":"assistant","content":"Yes"}]`:                                              "A ferry",
		`[{"role":"user","content":[{"type":"text","text":"A"},{"type":"image_url"},{"type":"text","text":"B"}]}]`:                "A\n\nB",
		`[{"role":"user","content":7}]`: "",
	} {
		if got := lastQuestion(json.RawMessage(messages)); got != want {
			t.Errorf("%s: got %q, want %q", messages, got, want)
		}
	}
}

func TestAnswerToQuestion(t *testing.T) {
	t.Parallel()
	data := rawjson.OptionalMembers(answerTo("Why \"salt\"?\n# And <b>why</b> now?").Data)
	if got, want := rawjson.Text(data["title"]), `Why "salt"? # And <b>why</b> now?`; got != want {
		t.Errorf("title: got %q, want %q", got, want)
	}
	if got := rawjson.Text(data["description"]); !strings.HasPrefix(got, "> Why \"salt\"?\n> # And <b>why</b> now?\n\n") || strings.Count(got, "\n\n") < 4 {
		t.Errorf("description: got %q, want the question quoted, and paragraphs", got)
	}
	data = rawjson.OptionalMembers(answerTo(strings.Repeat("é ", 100_000)).Data)
	if title, body := rawjson.Text(data["title"]), rawjson.Text(data["description"]); len(title) > 200 || len(body) > 4000 || !strings.Contains(body, "…\n\n") {
		t.Errorf("a long question: got %d and %d bytes", len(title), len(body))
	}
}
