package tests

import (
	"fmt"

	"github.com/chromedp/chromedp"
)

// pageTexts are items as models write them.
var pageTexts = []struct{ title, body, category, event, model string }{
	{"Why rivers bend", "## It begins with a stone\n\nWater that has to go around something is **faster at the outside**. There it takes sand away, and lays it down at the inside, where it is slow.\n\n1. The bend grows.\n2. The water in it gets faster still.\n3. In a flood it takes the short way, and the bend is a lake.\n\n| Bend | Width | Age |\n|:--|--:|--:|\n| first | 10 m | 40 years |\n| second | 200 m | 900 years |\n\n> A river never goes the same way twice.\n\nNobody has drawn the [Mississippi](https://example.com/river) as often as Harold Fisk, who in 1944 laid all of its ways over one another.", "stories", "new_content", "gpt-4o"},
	{"A river town wakes up", "The ferry leaves at six. By then the bakers on the quay have sold out of rye, the herons have taken their posts on the weir, and the first barge of the day is asking the lock for water.", "stories", "new_content", "gpt-4o"},
	{"Ticket 4821: refund after a double charge, for a customer who has asked twice already", "The customer was charged twice for the May invoice. Finance *confirmed* the duplicate on the 3rd.", "support", "summary", "claude-sonnet-4"},
	{"Enamel kettle, 1.2 litres, moss green", "", "shop", "product_copy", "gpt-4o-mini"},
	{"What the council decided on Thursday about the old mill and the path beside it", "- The mill stays.\n- The path is closed until May.\n- The bridge is paid for by the county.", "news", "summary", "claude-sonnet-4"},
	{"Bread for a slow Sunday", "Mix flour, water and salt in the evening. In the morning it has *doubled*.", "recipes", "new_content", "gpt-4o"},
	{"Three names for a boat", "`Heron`, `Second Wind`, and `Not For Sale`.", "stories", "names", "gpt-4o-mini"},
	{"Minutes of the swimming club", "All were there. The water was cold.", "news", "summary", "claude-sonnet-4"},
}

// sendTexts sends them so that the first is the newest, as they would come in an hour.
func (s *server) sendTexts() {
	s.t.Helper()
	db := openDatabase(s.t, s.Dir)
	for i := len(pageTexts) - 1; i >= 0; i-- {
		text := pageTexts[i]
		data := fmt.Sprintf(`{"title":%s,"body":%s}`, jsonText(text.title), jsonText(text.body))
		if text.body == "" {
			data = fmt.Sprintf(`{"title":%s,"price":"39 €","colour":"moss green","litres":1.2,"sizes":["S","L"]}`, jsonText(text.title))
		}
		s.mustSend(fmt.Appendf(nil, `{"type":"task.ai_generated","event":%q,"channel_id":"text-%d","ai_response":{"data":%s},"customer_data":{"category":%q},"meta":{"provider":"openai","model":%q}}`,
			text.event, i, data, text.category, text.model))
		if _, err := db.NewQuery(fmt.Sprintf(`UPDATE aiContent SET created = strftime('%%Y-%%m-%%d %%H:%%M:%%fZ', 'now', '-%d minutes') WHERE channelId = 'text-%d'`, i*i, i)).Execute(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// listIsWhole is true when the page lists all of pageTexts.
var listIsWhole = fmt.Sprintf(`document.querySelectorAll("#feed > li").length === %d`, len(pageTexts))

const (
	openTitle = `document.querySelector("#reading h2")?.textContent`
	focused   = `document.activeElement.textContent`
)

// typeKey presses a key, as "\r", or one of package kb.
func (p *tab) typeKey(key string) {
	p.t.Helper()
	runAction(p, chromedp.KeyEvent(key))
}
