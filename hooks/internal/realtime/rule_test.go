package realtime

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/ganigeorgiev/fexpr"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/search"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// A compiled rule must say what PocketBase says, for any rule and any values.
func TestCompiledRules(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	user, _ := apptest.NewUser(t, app, "u@example.com")
	collection, err := app.FindCachedCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(options ...string) string { return options[random.IntN(len(options))] }
	values := []string{"", user.Id, "general", "Ä", "a'b", " "}
	operand := func() string {
		return pick("userId", "category", "title", "@request.auth.id", `""`, `"general"`, `'Ä'`, `"a'b"`, `"`+user.Id+`"`)
	}
	var build func(depth int) string
	build = func(depth int) string {
		var b strings.Builder
		for i := range 1 + random.IntN(3) {
			if i > 0 {
				b.WriteString(pick(" && ", " || "))
			}
			if depth > 0 && random.IntN(3) == 0 {
				b.WriteString("(" + build(depth-1) + ")")
			} else {
				b.WriteString(operand() + pick(" = ", " != ") + operand())
			}
		}
		return b.String()
	}

	var stored []*core.Record
	for range 12 {
		record := core.NewRecord(collection)
		record.Set("title", pick("general", "Ä", "a'b"))
		record.Set("category", values[random.IntN(len(values))])
		record.Set("userId", values[random.IntN(len(values))])
		if err := app.Save(record); err != nil {
			t.Fatal(err)
		}
		stored = append(stored, record)
	}
	allowed := 0
	for range 400 {
		text := build(2)
		groups, err := fexpr.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		compiler := ruleCompiler{collection: collection}
		compiled := compiler.rule(groups)
		if compiled == nil {
			t.Fatalf("%s: not compiled", text)
		}
		record := stored[random.IntN(len(stored))]
		row, err := f.rows.read(app, collection, record.Id, compiler.fields)
		if err != nil {
			t.Fatal(err)
		}
		for _, auth := range []*core.Record{nil, user} {
			id := ""
			if auth != nil {
				id = auth.Id
			}
			want, err := app.CanAccessRecord(record, &core.RequestInfo{Context: core.RequestInfoContextRealtime, Auth: auth}, &text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if got := compiled(row, id); got != want {
				t.Errorf("%s for %q on userId %q, category %q, title %q: got %t, want %t", text, id,
					record.GetString("userId"), record.GetString("category"), record.GetString("title"), got, want)
			}
			if want {
				allowed++
			}
		}
	}
	if allowed < 100 || allowed > 700 {
		t.Errorf("%d of 800 checks allow: the rules do not tell viewers apart", allowed)
	}
	for _, text := range []string{
		`title ~ "x"`, `data.x = "1"`, `@request.auth.email = ""`, `created > @now`, `title = 1234567890123456`, `title > 0.00001`,
		`title = "x" && data.y = 1`, `(title !~ "x")`, `@collection.users.id ?= userId`, `title:lower = "x"`, `data = null`,
		strings.Repeat(`title = "x" || `, search.DefaultFilterExprLimit) + `title = "x"`, // which PocketBase refuses
	} {
		if (&ruleCompiler{collection: collection}).rule(mustGroups(t, text)) != nil {
			t.Errorf("%s: compiled, though only PocketBase can tell", text)
		}
	}
	for _, text := range []string{
		`created = ""`, `title = 1`, `userId = null`, `(title > "x")`,
		strings.Repeat(`(title = "x") || `, search.DefaultFilterExprLimit-1) + `title = "x"`,
	} {
		if (&ruleCompiler{collection: collection}).rule(mustGroups(t, text)) == nil {
			t.Errorf("%s: not compiled, though PocketBase need not be asked", text)
		}
	}
}

// Rules that ask the database are asked when the record is saved, not when its turn comes.
func TestBroadcastAsksAtOnce(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, f := newTest(t)
		content, err := app.FindCollectionByNameOrId(collectionName)
		if err != nil {
			t.Fatal(err)
		}
		content.ListRule = types.Pointer(`body ~ "public"`)
		if err := app.Save(content); err != nil {
			t.Fatal(err)
		}
		server := apptest.Serve(t, app)
		server.Client = client
		guest := server.Subscribe(t, "", "aiContent/*")
		earlier := new(core.Record) // whose hooks still run
		f.Committed([]*core.Record{earlier})
		record := core.NewRecord(content)
		record.Set("title", "T")
		for _, body := range []string{"public one", "SECRET", "public again"} {
			record.Set("body", body)
			if err := app.Save(record); err != nil {
				t.Fatal(err)
			}
		}
		f.Settled([]*core.Record{earlier})
		for _, want := range []string{"public one", "public again"} {
			if event := <-guest.Events; !strings.Contains(event, want) {
				t.Errorf("a guest got %s, want %s", event, want)
			}
		}
	})
}
