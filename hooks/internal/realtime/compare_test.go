package realtime

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/ganigeorgiev/fexpr"
)

var comparisonSeed = flag.Uint64("comparison.seed", 0, "the seed of the random comparisons; 0 takes one from the clock")

// Whatever is compiled says of any row what PocketBase's own query says of it, with any
// values that a column can have, those that only plain SQL writes too.
func TestCompiledEqualsSQLite(t *testing.T) {
	t.Parallel()
	seed := *comparisonSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	w := newKinds(t, seed)
	const texts = 3000
	compiled, compared, passed := 0, 0, 0
	for range texts {
		text, viewer, forFilter := w.groups(2), w.viewers[w.random.IntN(len(w.viewers))], w.random.IntN(2) == 0
		groups, err := fexpr.Parse(text)
		if err != nil {
			t.Fatalf("seed %d: %s: %v", seed, text, err)
		}
		compiler := ruleCompiler{collection: w.collection, forFilter: forFilter}
		rule := compiler.rule(groups)
		if rule == nil {
			continue
		}
		compiled++
		want, demand := w.ask(text, viewer, forFilter), compileFilter(w.collection, text).demand
		for id, row := range w.rows {
			got := rule(row, idOf(viewer))
			if got != slices.Contains(want, id) {
				t.Fatalf("seed %d: %s for %q, as a filter: %t, of %s: got %t", seed, text, idOf(viewer), forFilter, describe(row, compiler.fields), got)
			}
			if compared++; !got {
				continue
			}
			if passed++; forFilter && demand.field != "" && row[demand.field].text != demand.value {
				t.Fatalf("seed %d: %s passes %s, and demands %+v", seed, text, describe(row, compiler.fields), demand)
			}
		}
		w.checkOne(text, viewer, compiler, rule)
	}
	t.Logf("seed %d: %d of %d compiled, %d comparisons of which %d pass", seed, compiled, texts, compared, passed)
	if compared < 20000 || passed < compared/20 || passed > compared*19/20 {
		t.Errorf("seed %d: %d of %d texts compiled, %d comparisons of which %d pass: they tell too little", seed, compiled, texts, compared, passed)
	}
}

// Two columns of different affinities, texts that SQLite may or may not take for a number,
// and what PocketBase reads from more than the column.
func TestNotCompiled(t *testing.T) {
	t.Parallel()
	w := newKinds(t, 1)
	for _, row := range []struct {
		text           string
		rule, asFilter bool
	}{
		{`n = "1e3"`, false, false}, {`n = " 5"`, false, false}, {`n = "1234567890123456"`, false, false}, {`n = "5 apples"`, false, false}, {`n = "abc"`, true, true},
		{`n = @request.auth.id`, false, false}, {`words = @request.auth.id`, true, false}, {`words < n`, false, false}, {`words = n`, true, true},
		{`many = "a"`, false, false}, {`json = 1`, false, false}, {`password = "x"`, false, false}, {`email = "x"`, true, false}, {`mail = "x"`, true, true},
		{`secret = "x"`, true, false}, {`nothing = "x"`, false, false}, {`author = "x"`, true, true}, {`author.id = "x"`, false, false},
		{`words = -0`, false, false}, {`words = 1000000000000000`, false, false}, {`n = -0`, true, true},
	} {
		for _, forFilter := range []bool{false, true} {
			want := row.rule
			if forFilter {
				want = row.asFilter
			}
			compiler := ruleCompiler{collection: w.collection, forFilter: forFilter}
			if got := compiler.rule(mustGroups(t, row.text)) != nil; got != want {
				t.Errorf("%s, as a filter: %t: compiled: %t, want %t", row.text, forFilter, got, want)
			}
		}
	}
}

// PocketBase looks for these in the text, wherever they stand.
func TestFilterForSuperusers(t *testing.T) {
	t.Parallel()
	w := newKinds(t, 1)
	for text, asks := range map[string]bool{`words != "@request."`: true, `words != "a@collection.example"`: true, `words != "a@b.example"`: false} {
		if got := compileFilter(w.collection, text).asks(); got != asks {
			t.Errorf("%s: asks: %t, want %t", text, got, asks)
		}
	}
}

// Only an equality of a text field with a text is demanded: what else is equal is not by its bytes.
func TestDemand(t *testing.T) {
	t.Parallel()
	w := newKinds(t, 1)
	for text, want := range map[string][2]string{
		`words = "a"`: {"words", "a"}, `"a" = one`: {"one", "a"}, `n > 1 && (done = true && words = "a")`: {"words", "a"}, `words = ""`: {"words", ""},
		`words = "a" || words = "b"`: {}, `n = "5"`: {}, `"5" = n`: {}, `words = 5`: {}, `words != "a"`: {}, `words > "a"`: {}, `"a" = "a"`: {}, `words = page`: {},
	} {
		filter := compileFilter(w.collection, text)
		if filter.asks() || filter.demand.field != want[0] || filter.demand.value != want[1] {
			t.Errorf("%s: asks: %t, demands %+v, want %+v", text, filter.asks(), filter.demand, want)
		}
	}
}
