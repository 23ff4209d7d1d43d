package store

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// A knownDelivery is what the test wrote into the database of one delivery.
type knownDelivery struct {
	id, title, event, category, user, channel string // of the record, or of the payload

	record, source, recordCreated        string // the first empty if there is no record
	callback, callbackCreated, delivered string // the first empty if there is no callback row
	payload, lastError, nextAttempt      string
	attempts, lastStatus                 int
}

var (
	someTitles = []string{
		"Inception", "INCEPTION 2", "a%b", "a_b", `a\b`, "100%", `it's "quoted"`, "nul\x00inside", "Ünïcödé ÄÖ", "ünïcödé äö",
		"日本語のタイトル", "emoji 👩‍🚀", "İstanbul", "", "  ", "x' OR 1=1 --",
	}
	someSearches = []string{
		"inception", "CEPT", "%", "_", `\`, `\b`, "'", `"`, "\x00", "nul\x00i", "ü", "Ü", "本語", "👩", "i", "untitled", "{:user}", "a%b",
		"channel-1", "channel-2", "id0000000000001", "id0000000000007", "nothing has this", "OR 1=1", "\xff",
	}
	someEvents     = []string{"new_content", "Quote's", "événement", ""}
	someCategories = []string{"general", "movies", "%"}
	someUsers      = []string{"user00000000001", "user's", ""}
)

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// newKnown returns n random deliveries and records that are none, at few different times.
// With skew, record and callback row of a delivery were not created at the same time.
func newKnown(r *rand.Rand, n int, skew bool) (known []*knownDelivery) {
	at := func() string {
		return time.Date(2026, 1, 1, 0, 0, 0, r.IntN(7)*int(time.Millisecond), time.UTC).Format(types.DefaultDateLayout)
	}
	for i := range n {
		k := &knownDelivery{
			id: fmt.Sprintf("id%013d", i), title: pick(r, someTitles...), event: pick(r, someEvents...),
			category: pick(r, someCategories...), user: pick(r, someUsers...), channel: fmt.Sprintf("channel-%d", r.IntN(n)),
			source: "modelriver", recordCreated: at(), attempts: r.IntN(9), lastStatus: pick(r, 0, 200, 503), lastError: pick(r, "", "it's\nlong"),
		}
		k.record, k.callbackCreated = k.id, k.recordCreated
		if skew {
			k.callbackCreated = at()
		}
		k.callback = pick(r, Pending, Delivered, Failed, Delivered)
		switch r.IntN(10) {
		case 0: // stored, and no callback was owed
			k.callback = ""
		case 1: // made by hand
			k.callback, k.source = "", pick(r, "", "dashboard")
		case 2: // made by hand, and called back all the same
			k.source = ""
		case 3: // the record was deleted
			k.record = ""
		case 4: // the record was deleted, and there was no callback
			k.record, k.callback = "", Deleted
		case 5, 6: // refused
			k.record, k.callback, k.payload = "", pick(r, Failed, Failed, Pending), refusedPayload(r, k)
		case 7: // refused, and then made by hand
			k.callback, k.payload = pick(r, Failed, Pending), "{}"
		}
		if k.callback == Delivered || k.callback == Failed && k.payload != "" && r.IntN(2) == 0 {
			k.delivered = "2026-01-01 00:00:01.000Z"
		}
		k.nextAttempt = "2026-01-01 00:00:02.000Z"
		known = append(known, k)
	}
	return known
}

// refusedPayload returns a payload for k, or one of which nothing can be told.
func refusedPayload(r *rand.Rand, k *knownDelivery) string {
	if r.IntN(4) == 0 {
		k.title, k.event, k.category, k.user, k.channel = "Untitled", "", "", "", ""
		return "no JSON"
	}
	payload, err := json.Marshal(map[string]any{
		"event": k.event, "channel_id": k.channel, "ai_response": map[string]any{"data": map[string]any{"title": k.title}},
		"customer_data": map[string]any{"category": k.category, "user_id": k.user},
	})
	if err != nil {
		panic(err)
	}
	if strings.TrimSpace(k.title) == "" {
		k.title = "Untitled"
	}
	return string(payload)
}

func (k *knownDelivery) write(t testing.TB, app core.App) {
	t.Helper()
	insert := func(table string, row dbx.Params) {
		if _, err := app.NonconcurrentDB().Insert(table, row).Execute(); err != nil {
			t.Fatal(err)
		}
	}
	if k.record != "" {
		insert(Content, dbx.Params{
			"id": k.id, "title": k.title, "eventName": k.event, "category": k.category, "userId": k.user, "channelId": k.channel,
			"source": k.source, "created": k.recordCreated, "updated": k.recordCreated, "body": "body", "data": "{}",
		})
	}
	if k.callback != "" {
		insert(Callbacks, dbx.Params{
			"id": k.id, "record": k.record, "state": k.callback, "payload": k.payload, "created": k.callbackCreated, "updated": k.callbackCreated,
			"deliveredAt": k.delivered, "attempts": k.attempts, "lastStatus": k.lastStatus, "lastError": k.lastError, "nextAttempt": k.nextAttempt, "body": "body",
		})
	}
}

func (k *knownDelivery) created() string {
	if k.record != "" {
		return k.recordCreated
	}
	return k.callbackCreated
}

func (k *knownDelivery) isDelivery() bool { return k.source == "modelriver" || k.callback != "" }

// delivery is the item that the list is to have for k.
func (k *knownDelivery) delivery() *Delivery {
	d := &Delivery{Id: k.id, Record: k.record, Callback: k.callback}
	d.Created, _ = types.ParseDateTime(k.created())
	if k.record != "" || k.payload != "" {
		d.Title, d.Event, d.Category, d.UserId, d.ChannelId = k.title, k.event, k.category, k.user, k.channel
		if k.record == "" && d.Category == "" && k.payload != "no JSON" {
			d.Category = "general"
		}
	}
	d.State = map[string]string{Pending: Waiting, Failed: Failed, Delivered: Delivered, Deleted: Stored, "": Stored}[k.callback]
	switch {
	case k.payload != "":
		d.State = Refused
	case k.record == "" && (k.callback == Delivered || k.callback == Deleted):
		d.State = Deleted
	}
	if k.callback == "" {
		return d
	}
	d.Attempts, d.LastStatus, d.LastError = k.attempts, k.lastStatus, k.lastError
	d.DeliveredAt, _ = types.ParseDateTime(k.delivered)
	if k.callback == Pending {
		d.NextAttempt, _ = types.ParseDateTime(k.nextAttempt)
	}
	if k.callback == Delivered {
		received, _ := types.ParseDateTime(k.callbackCreated)
		took := d.DeliveredAt.Sub(received).Milliseconds()
		d.Took = &took
	}
	return d
}

// naively returns what the filter lets through, by looking at every delivery.
func naively(known []*knownDelivery, f DeliveryFilter) []*Delivery {
	isId, isChannel := false, false
	for _, k := range known {
		isId = isId || k.id == f.Search
		isChannel = isChannel || k.record != "" && k.channel == f.Search
	}
	var found []*Delivery
	for _, k := range known {
		d := k.delivery()
		if !k.isDelivery() ||
			f.Event != "" && d.Event != f.Event || f.Category != "" && d.Category != f.Category || f.User != "" && d.UserId != f.User ||
			!f.From.IsZero() && d.Created.Time().Before(f.From) || !f.To.IsZero() && !d.Created.Time().Before(f.To) {
			continue
		}
		switch f.State {
		case "":
		case Refused:
			if k.payload == "" {
				continue
			}
		default:
			if (map[string]string{Waiting: Pending, Delivered: Delivered, Failed: Failed, Deleted: Deleted})[f.State] != k.callback {
				continue
			}
		}
		hasTitle := d.Title != "" && strings.Contains(lowerASCII(d.Title), lowerASCII(f.Search))
		if f.Search != "" {
			switch {
			case isId && k.id != f.Search, !isId && isChannel && d.ChannelId != f.Search, !isId && !isChannel && !hasTitle && d.ChannelId != f.Search:
				continue
			}
		}
		found = append(found, d)
	}
	slices.SortFunc(found, func(a, b *Delivery) int {
		return strings.Compare(b.Created.String()+b.Id, a.Created.String()+a.Id)
	})
	return found
}
