package store

import (
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// A position is a delivery's place in the list.
type position struct{ created, id string }

// theTop is before every delivery: no date is greater.
var theTop = position{created: "~"}

func (p position) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(p.created + " " + p.id))
}

func parsePosition(text string) (position, error) {
	if text == "" {
		return theTop, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	length := len(types.DefaultDateLayout)
	if len(raw) > 0 && raw[0] == ' ' { // a row that is older than its collection's field created
		length = 0
	}
	if err != nil || len(raw) <= length || raw[length] != ' ' {
		return position{}, ErrNoPosition
	}
	return position{created: string(raw[:length]), id: string(raw[length+1:])}, nil
}

// A deliveryQuery is a filter on its way to SQL. There, a is the record and c the
// callback row of a delivery.
//
// Each of its sources reads the rows of one index in the order of the list, and the
// database merges them. What no index finds is a column of the result rather than a
// condition, so that whoever reads the rows knows how far was looked, and can stop.
type deliveryQuery struct {
	filter DeliveryFilter
	named  string // the column that has Search as a whole: "id" or "channelId", else empty
	params dbx.Params
	time   time.Duration // for which a page looks at most
}

func newDeliveryQuery(app core.App, filter DeliveryFilter) (*deliveryQuery, error) {
	from, err := parsePosition(filter.After)
	if err != nil {
		return nil, err
	}
	if to := firstMillisecond(filter.To); !filter.To.IsZero() && to < from.created {
		from = position{created: to}
	}
	q := &deliveryQuery{filter: filter, time: maxLookTime, params: dbx.Params{
		"created": from.created, "id": from.id, "from": "", "limit": maxLook + 1,
		"event": filter.Event, "category": filter.Category, "user": filter.User, "search": filter.Search,
	}}
	if !filter.From.IsZero() {
		q.params["from"] = firstMillisecond(filter.From)
	}
	if filter.Search != "" {
		err = app.ConcurrentDB().NewQuery(`
			SELECT CASE
				WHEN EXISTS (SELECT 1 FROM aiContent WHERE id = {:search})
					OR EXISTS (SELECT 1 FROM modelriverCallbacks WHERE id = {:search}) THEN 'id'
				WHEN EXISTS (SELECT 1 FROM aiContent WHERE channelId = {:search}) THEN 'channelId'
				ELSE '' END`).Bind(dbx.Params{"search": filter.Search}).Row(&q.named)
		if q.named == "" {
			q.params["search"] = lowerASCII(filter.Search)
		}
	}
	return q, err
}

// firstMillisecond is the first that is not before t, in the database's form.
func firstMillisecond(t time.Time) string {
	return DateTime(t.Add(time.Millisecond - 1)).String()
}

// sql is the query whose rows are positions, whether the delivery there matches, and
// the payload of which that is to be found out yet.
func (q *deliveryQuery) sql() string {
	f := q.filter
	var sources []string
	switch {
	case q.named == "id":
		sources = []string{q.records("a.id = {:search}"), q.orphans("c.id = {:search}")}
	case q.named != "":
		sources = []string{q.records("a.channelId = {:search}"), q.orphans("c.payload != ''")}
	case f.State == Delivered && f.User != "":
		sources = []string{q.records("a.userId = {:user}")}
	case f.State == Delivered && f.Event != "":
		sources = []string{q.records("a.eventName = {:event}")}
	case f.State != "":
		sources = []string{q.callbacks()}
	case f.User != "":
		sources = []string{q.records("a.userId = {:user}"), q.orphans("c.payload != ''")}
	case f.Event != "":
		sources = []string{q.records("a.eventName = {:event}"), q.orphans("c.payload != ''")}
	case q.content() != "":
		sources = []string{q.records("TRUE"), q.orphans("c.payload != ''")}
	default:
		sources = []string{q.records("TRUE"), q.orphans("TRUE")}
	}
	return strings.Join(sources, " UNION ALL ") + " ORDER BY 1 DESC, 2 DESC LIMIT {:limit}"
}

// records are the deliveries with a record, of those rows that indexed finds.
func (q *deliveryQuery) records(indexed string) string {
	came := "EXISTS (SELECT 1 FROM modelriverCallbacks c WHERE c.id = a.id"
	if state := q.state(); state != "" {
		came += " AND " + state + ")"
	} else {
		came = "(" + came + ") OR a.source = 'modelriver')"
	}
	return "SELECT a.created, a.id, COALESCE(" + and(q.content(), came) + ", 0) AS matches, '' AS payload FROM aiContent a WHERE " +
		indexed + between("a")
}

// orphans are the deliveries without a record, of those callback rows that indexed finds.
func (q *deliveryQuery) orphans(indexed string) string {
	return q.callbackRows(indexed, and("a.id IS NULL", q.state()))
}

// callbacks are the deliveries whose callback row has the state.
func (q *deliveryQuery) callbacks() string {
	state := q.state()
	switch q.filter.State {
	case Waiting, Deleted: // deliveredAt, so that an index has them in order
		return q.callbackRows(state+" AND c.deliveredAt = ''", "TRUE")
	case Failed, Refused:
		return q.callbackRows(state, "TRUE")
	}
	return q.callbackRows("TRUE", state)
}

func (q *deliveryQuery) callbackRows(indexed, matches string) string {
	payload := "''"
	if content := q.content(); content != "" {
		matches = and(matches, "CASE WHEN a.id IS NULL THEN c.payload != '' ELSE "+content+" END")
		payload = "iif(a.id IS NULL, c.payload, '')"
	}
	return "SELECT c.created, c.id, COALESCE(" + matches + ", 0) AS matches, " + payload + " AS payload" +
		" FROM modelriverCallbacks c LEFT JOIN aiContent a ON a.id = c.id WHERE " + indexed + between("c")
}

// state is the condition that the callback row fulfils, or empty.
func (q *deliveryQuery) state() string {
	switch q.filter.State {
	case "":
		return ""
	case Refused:
		return "c.payload != ''"
	case Waiting:
		return "c.state = 'pending'"
	}
	return "c.state = '" + q.filter.State + "'"
}

// content is the condition that the record fulfils, or empty.
func (q *deliveryQuery) content() string {
	condition := ""
	for _, of := range []struct{ value, condition string }{
		{q.filter.Event, "a.eventName = {:event}"},
		{q.filter.Category, "a.category = {:category}"},
		{q.filter.User, "a.userId = {:user}"},
	} {
		if of.value != "" {
			condition = and(condition, of.condition)
		}
	}
	switch {
	case q.filter.Search == "" || q.named == "id": // which an index finds in both tables
		return condition
	case q.named != "":
		return and(condition, "a.channelId = {:search}")
	}
	return and(condition, "instr(lower(a.title), {:search}) > 0") // lower knows ASCII only
}

// matchesPayload reports whether the content that a refused event would have had
// fulfils the filter.
func (q *deliveryQuery) matchesPayload(payload []byte) bool {
	f, refused := q.filter, contentOf(string(payload))
	if f.Event != "" && f.Event != refused.Event || f.Category != "" && f.Category != refused.Category ||
		f.User != "" && f.User != refused.UserId {
		return false
	}
	return f.Search == "" || q.named == "id" || refused.ChannelId == f.Search ||
		q.named == "" && strings.Contains(lowerASCII(refused.Title), lowerASCII(f.Search))
}

// between is the part of a source's index that the page is in, and its order.
func between(table string) string {
	return strings.ReplaceAll(" AND (t.created, t.id) < ({:created}, {:id}) AND t.created >= {:from}", "t.", table+".")
}

func and(conditions ...string) string {
	return strings.Join(slices.DeleteFunc(conditions, func(c string) bool { return c == "" }), " AND ")
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
