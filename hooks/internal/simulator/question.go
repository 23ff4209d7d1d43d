package simulator

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
)

// lastQuestion is the text of the last message that a user wrote, empty if there is none.
// Its content is a text, or a list of parts.
func lastQuestion(messages json.RawMessage) string {
	var all []json.RawMessage
	_ = json.Unmarshal(messages, &all) // no question is found in anything else
	for i := len(all) - 1; i >= 0; i-- {
		message := rawjson.OptionalMembers(all[i])
		if rawjson.Text(message["role"]) != "user" {
			continue
		}
		text := rawjson.Text(message["content"])
		var parts []json.RawMessage
		if json.Unmarshal(message["content"], &parts) == nil {
			for _, part := range parts {
				text += rawjson.Text(rawjson.OptionalMembers(part)["text"]) + "\n"
			}
		}
		return strings.TrimSpace(text)
	}
	return ""
}

// answerTo is the AI's answer to a question: always the same to the same one.
func answerTo(question string) content {
	quoted := []rune(strings.ToValidUTF8(question, "\uFFFD"))
	if len(quoted) > 1000 {
		quoted = append(quoted[:999], '…')
	}
	body := "> " + strings.ReplaceAll(string(quoted), "\n", "\n> ") + `

Your question arrived, and this is the answer to it. No AI has read it: the **simulator** takes ModelRiver's place on this machine, so it costs nothing, and says the same each time.

The way is the real one, though:

- the question was posted to ` + "`/v1/ai/async`" + `, which told the channel of its answer
- the answer came back as a signed webhook
- whoever was watching saw it as soon as it was stored.

With ModelRiver's own key and address, a model writes what stands here.`
	return content{
		Provider: "pocketriver", Model: "simulator",
		Data: fmt.Appendf(nil, `{"title":%s,"description":%s}`, rawjson.String(excerpt([]byte(question))), rawjson.String(body)),
	}
}
