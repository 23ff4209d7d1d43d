package store

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

func randomFilter(r *rand.Rand) (f DeliveryFilter) {
	set := func(field *string, values ...string) {
		if r.IntN(3) == 0 {
			*field = pick(r, values...)
		}
	}
	set(&f.State, Waiting, Delivered, Failed, Refused, Deleted)
	set(&f.Event, someEvents...)
	set(&f.Category, someCategories...)
	set(&f.User, someUsers...)
	set(&f.Search, someSearches...)
	return f
}

// allPages returns what the filter lets through, page by page.
func allPages(t *testing.T, app core.App, r *rand.Rand, f DeliveryFilter, between func(page int)) (all []*Delivery) {
	t.Helper()
	for page := 0; ; page++ {
		f.Limit = 1 + r.IntN(9)
		got, err := FindDeliveries(app, f)
		if err != nil {
			t.Fatalf("%+v: %v", f, err)
		}
		if len(got.Items) > f.Limit || len(got.Items) < f.Limit && got.Next != "" && got.SearchedTo.IsZero() {
			t.Fatalf("%+v: a page of %d, with a next %q", f, len(got.Items), got.Next)
		}
		all = append(all, got.Items...)
		if got.Next == "" {
			return all
		}
		if page > 10_000 {
			t.Fatalf("%+v: the pages do not end", f)
		}
		f.After = got.Next
		between(page)
	}
}

func asJSON(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every filter, in pages of any length, must give what looking at every row gives.
func TestDeliveriesAreThoseOfANaiveReading(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 7))
		app := apptest.NewApp(t)
		known := newKnown(r, 90, false)
		for _, k := range known {
			k.write(t, app)
		}
		matched := 0
		for range 150 {
			f := randomFilter(r)
			begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			if r.IntN(3) == 0 {
				f.From = begin.Add(time.Duration(r.IntN(14)) * time.Millisecond / 2)
			}
			if r.IntN(3) == 0 {
				f.To = begin.Add(time.Duration(r.IntN(14)) * time.Millisecond / 2)
			}
			want, got := naively(known, f), allPages(t, app, r, f, func(int) {})
			matched += len(want)
			if !slices.EqualFunc(got, want, func(a, b *Delivery) bool { return asJSON(t, a) == asJSON(t, b) && a.Callback == b.Callback }) {
				t.Fatalf("seed %d, %+v:\ngot  %s\nwant %s", seed, f, asJSON(t, got), asJSON(t, want))
			}
		}
		if matched < 500 {
			t.Errorf("only %d deliveries matched", matched)
		}
	}
}

// A record and its callback row of different times are one delivery all the same, in
// the list of every filter.
func TestDeliveriesOfDifferentTimes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	app := apptest.NewApp(t)
	known := newKnown(r, 90, true)
	for _, k := range known {
		k.write(t, app)
	}
	for range 150 {
		f := randomFilter(r)
		ids := func(of []*Delivery) (ids []string) {
			for _, d := range of {
				ids = append(ids, d.Id)
			}
			slices.Sort(ids)
			return ids
		}
		got := allPages(t, app, r, f, func(int) {})
		if !slices.IsSortedFunc(got, func(a, b *Delivery) int {
			return strings.Compare(b.Created.String()+b.Id, a.Created.String()+a.Id)
		}) {
			t.Fatalf("%+v: not the newest first: %s", f, asJSON(t, got))
		}
		if got, want := ids(got), ids(naively(known, f)); !slices.Equal(got, want) {
			t.Fatalf("%+v: got %q, want %q", f, got, want)
		}
	}
}

// What comes and goes between two pages must not move what stays.
func TestDeliveriesChangeBetweenPages(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 3))
		app := apptest.NewApp(t)
		known := newKnown(r, 200, false)
		for _, k := range known[:150] {
			k.write(t, app)
		}
		here, gone := known[:150], map[string]bool{}
		got := allPages(t, app, r, DeliveryFilter{}, func(page int) {
			if page >= 50 || page > len(known)-151 {
				return
			}
			known[150+page].write(t, app)
			victim := here[r.IntN(len(here))].id
			gone[victim] = true
			for _, table := range []string{Content, Callbacks} {
				if _, err := app.NonconcurrentDB().NewQuery("DELETE FROM " + table + " WHERE id = '" + victim + "'").Execute(); err != nil {
					t.Fatal(err)
				}
			}
		})
		var ids, want []string
		for _, d := range naively(here, DeliveryFilter{}) {
			if !gone[d.Id] {
				want = append(want, d.Id)
			}
		}
		for _, d := range got {
			if !gone[d.Id] && slices.ContainsFunc(here, func(k *knownDelivery) bool { return k.id == d.Id }) {
				ids = append(ids, d.Id)
			}
		}
		if !slices.Equal(ids, want) {
			t.Fatalf("seed %d: got %q, want %q", seed, ids, want)
		}
	}
}

// A page that finds nothing must end after so many rows, and after so long, say how far
// it looked, and be gone on from.
func TestDeliveriesLookIsBounded(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	now := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	insertRows(t, app, now, maxLook+1000)
	const needle = "UPDATE aiContent SET title = 'A needle', source = 'modelriver' WHERE id = '000000000020900'"
	if _, err := app.NonconcurrentDB().NewQuery(needle).Execute(); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name         string
		time         time.Duration
		after        int // rows that the first page looks at
		fewest, most int // pages
	}{
		{"rows", time.Hour, maxLook, 2, 2},
		{"time", 0, 15, 100, 2000},
	} {
		f, pages := DeliveryFilter{Search: "NEEDLE", Limit: 5}, 0
		var found []position
		for {
			query, err := newDeliveryQuery(app, f)
			if err != nil {
				t.Fatal(err)
			}
			query.time = row.time
			page := new(DeliveryPage)
			positions, err := query.look(app, page)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, positions...)
			if pages++; pages == 1 {
				// The figures' refused rows, every thousandth, have a record, and are looked at too.
				want := now.Add(-time.Duration(row.after-row.after/1000) * time.Minute)
				if got := page.SearchedTo.Time(); len(positions) != 0 || page.Next == "" || got.Sub(want).Abs() > 2*time.Minute {
					t.Errorf("%s: the first page found %v and looked to %v, want nothing, to %v", row.name, positions, got, want)
				}
			}
			if f.After = page.Next; f.After == "" {
				break
			}
		}
		if len(found) != 1 || found[0].id != "000000000020900" || pages < row.fewest || pages > row.most {
			t.Errorf("%s: got %v in %d pages", row.name, found, pages)
		}
	}
}

func TestDeliveriesAfterNoPosition(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	for _, after := range []string{"x", "!", "MjAyNg", position{created: "2026", id: "x"}.String()} {
		if _, err := FindDeliveries(app, DeliveryFilter{After: after, Limit: 1}); !errors.Is(err, ErrNoPosition) {
			t.Errorf("%q: got %v", after, err)
		}
	}
}

// Rows that are older than their collection's field created have none. A list goes on past
// them all the same.
func TestDeliveriesOfNoDate(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	_, err := app.NonconcurrentDB().NewQuery(`
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20001)
		INSERT INTO aiContent (id, title, source) SELECT printf('%015d', i), 'T', iif(i = 1, 'modelriver', '') FROM n`).Execute()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for filter := (DeliveryFilter{Limit: 30}); ; {
		page, err := FindDeliveries(app, filter)
		if err != nil {
			t.Fatal(err)
		}
		found += len(page.Items)
		if page.Next == "" {
			break
		}
		filter.After = page.Next
	}
	if found != 1 {
		t.Errorf("got %d deliveries, want 1", found)
	}
}
