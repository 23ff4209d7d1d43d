package tests

import (
	"fmt"
	"math/rand/v2"
	"net/http"
)

// change makes a random change, or several at once, and returns how many were made.
func (r *liveRun) change(rng *rand.Rand) int {
	if r.many() && rng.IntN(2) == 0 {
		return r.batch(rng, 40)
	}
	switch rng.IntN(12) {
	case 0, 1:
		return r.webhooks(rng)
	case 2:
		return r.create(rng)
	case 3, 4, 5:
		return count(r.do(http.MethodPatch, contentRecords+"/"+r.someRow(rng), r.someFields(rng)))
	case 6, 7: // it leaves some and comes to others
		return count(r.do(http.MethodPatch, contentRecords+"/"+r.someRow(rng), map[string]any{"userId": r.someUser(rng)}))
	case 8:
		return count(r.do(http.MethodDelete, contentRecords+"/"+r.takeRow(rng), nil))
	case 9: // and comes back as another
		id := r.takeRow(rng)
		gone := count(r.do(http.MethodDelete, contentRecords+"/"+id, nil))
		return gone + r.put(rng, id)
	case 10:
		return r.changeNote(rng)
	}
	return r.batch(rng, 0)
}

func count(done bool) int {
	if done {
		return 1
	}
	return 0
}

// many reports whether there are more rows than there should be.
func (r *liveRun) many() bool {
	r.pool.Lock()
	defer r.pool.Unlock()
	return len(r.ids) > rows
}

// someRow returns the id of a row, of which a few change much.
func (r *liveRun) someRow(rng *rand.Rand) string {
	r.pool.Lock()
	defer r.pool.Unlock()
	if len(r.ids) == 0 {
		return newRowId(rng)
	}
	n := len(r.ids)
	if rng.IntN(2) == 0 {
		n = min(n, 20)
	}
	return r.ids[rng.IntN(n)]
}

// takeRow is someRow, which others then do not get.
func (r *liveRun) takeRow(rng *rand.Rand) string {
	id := r.someRow(rng)
	r.pool.Lock()
	defer r.pool.Unlock()
	for i, other := range r.ids {
		if other == id {
			r.ids = append(r.ids[:i], r.ids[i+1:]...)
			break
		}
	}
	return id
}

func newRowId(rng *rand.Rand) string { return fmt.Sprintf("%015x", rng.Uint64())[:15] }

func (r *liveRun) create(rng *rand.Rand) int { return r.put(rng, newRowId(rng)) }

// put creates a row with every field.
func (r *liveRun) put(rng *rand.Rand, id string) int {
	if !r.do(http.MethodPost, contentRecords, r.allFields(rng, id)) {
		return 0
	}
	r.pool.Lock()
	defer r.pool.Unlock()
	r.ids = append(r.ids, id)
	return 1
}

func (r *liveRun) allFields(rng *rand.Rand, id string) map[string]any {
	fields := map[string]any{"id": id, "title": someTitle(rng)}
	for len(fields) < 12 {
		for name, value := range r.someFields(rng) {
			fields[name] = value
		}
	}
	return fields
}

// someFields returns new values of a few fields.
func (r *liveRun) someFields(rng *rand.Rand) map[string]any {
	fields := map[string]any{}
	for range 1 + rng.IntN(3) {
		switch rng.IntN(11) {
		case 0, 1:
			fields["title"] = someTitle(rng)
		case 2:
			fields["body"] = pick(rng, "", "x", "a longer text of "+someTitle(rng))
		case 3:
			fields["category"] = pick(rng, "a", "b", "c", "B", "")
		case 4:
			fields["rank"] = pick[any](rng, 0, 5, -3.25, 7.75, 1e15, rng.IntN(10), rng.Float64()*10)
		case 5:
			fields["approved"] = rng.IntN(2) == 0
		case 6:
			fields["due"] = pick(rng, "", "2026-06-01 00:00:00.000Z", fmt.Sprintf("2026-%02d-01 11:00:00.000Z", 1+rng.IntN(12)))
		case 7:
			fields["kind"] = pick(rng, "", "memo", "draft", "Ünï")
			fields["tags"] = pick(rng, []string{}, []string{"red"}, []string{"red", "blue"}, []string{"green", "red", "blue"})
		case 8:
			fields["data"] = map[string]any{"n": pick[any](rng, rng.IntN(60), rng.IntN(8), nil, "text"), "tags": pick(rng, []string{}, []string{"x"}, []string{"x", "y"})}
		case 9:
			fields["owner"] = pick(rng, "", r.users[0], r.users[1])
			fields["secret"] = pick(rng, "", "x", "y")
		case 10:
			fields["userId"] = r.someUser(rng)
		}
	}
	return fields
}

func someTitle(rng *rand.Rand) string {
	return pick(rng, "open", "Open", "a%b_c", "Ünïcode 🌊", "🏁", "zebra", `"quoted"`, fmt.Sprint("Row ", rng.IntN(20)))
}

func (r *liveRun) someUser(rng *rand.Rand) string {
	return pick(rng, "", "", r.users[0], r.users[1], "somebody else")
}

// webhooks sends a few, which bring a row each.
func (r *liveRun) webhooks(rng *rand.Rand) int {
	made := 0
	for range 1 + rng.IntN(30) {
		channel := fmt.Sprint("live-", r.sent.Add(1))
		status := r.Send(fmt.Appendf(nil, `{"type":"task.ai_generated","event":"new_content","channel_id":%q,
			"ai_response":{"data":{"title":%s,"body":"x","n":%d,"tags":["x"]}},"customer_data":{"category":%q,"user_id":%q}}`,
			channel, jsonText(someTitle(rng)), rng.IntN(60), pick(rng, "a", "b", "c"), r.someUser(rng)))
		r.note("webhook %s: %d", channel, status)
		made += count(status == http.StatusOK)
	}
	return made
}

// batch makes several changes in one transaction, sometimes to undo them, and at least so
// many deletes.
func (r *liveRun) batch(rng *rand.Rand, deletes int) int {
	var requests []map[string]any
	add := func(method, path string, body map[string]any) {
		requests = append(requests, map[string]any{"method": method, "url": path, "body": body})
	}
	taken := map[string]bool{}
	for range deletes {
		if id := r.takeRow(rng); !taken[id] {
			taken[id] = true
			add(http.MethodDelete, contentRecords+"/"+id, nil)
		}
	}
	for range 1 + rng.IntN(25) {
		id := r.someRow(rng)
		if rng.IntN(4) == 0 {
			id = newRowId(rng)
		}
		if !taken[id] {
			fields := r.someFields(rng)
			fields["id"], fields["title"] = id, someTitle(rng)
			add(http.MethodPut, contentRecords, fields)
		}
	}
	undone := rng.IntN(8) == 0
	if undone {
		add(http.MethodPost, contentRecords, map[string]any{"title": ""}) // which is required
	}
	if !r.do(http.MethodPost, "/api/batch", map[string]any{"requests": requests}) {
		return 0
	}
	return len(requests)
}

// changeNote changes the other collection.
func (r *liveRun) changeNote(rng *rand.Rand) int {
	const notes = "/api/collections/notes/records"
	id := fmt.Sprintf("note%011d", rng.IntN(40))
	if rng.IntN(4) == 0 {
		return count(r.do(http.MethodDelete, notes+"/"+id, nil))
	}
	fields := map[string]any{
		"id": id, "title": someTitle(rng), "rank": rng.IntN(6), "done": rng.IntN(2) == 0, "kind": pick(rng, "", "memo", "draft"),
		"due": pick(rng, "", "2026-06-01 00:00:00.000Z"), "content": r.someRow(rng),
	}
	return count(r.do(http.MethodPatch, notes+"/"+id, fields) || r.do(http.MethodPost, notes, fields))
}
