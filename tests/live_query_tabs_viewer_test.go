package tests

import (
	"fmt"
	"net/http"
	"testing"
)

// TestTabsOfTwoViewers has stores that the tabs do not share.
func TestTabsOfTwoViewers(t *testing.T) {
	t.Parallel()
	s, token, first := startHarness(t)
	ann, bob := s.user(token, "ann@example.com"), s.user(token, "bob@example.com")
	second := harnessBeside(first, s.URL)
	tabs := []*tab{first, second}
	for i, p := range tabs {
		eval[bool](p, `import("/vendor/pocketbase.es.mjs").then(({ default: PocketBase, BaseAuthStore }) =>
			!!(pb = new PocketBase(location.origin, new BaseAuthStore())))`)
		p.SignIn([]string{"ann@example.com", "bob@example.com"}[i], testPassword)
		p.Live(`"own", {limit: 10}`)
	}
	forbid := func(p *tab, text string) { eval[bool](p, fmt.Sprintf(`(queries.own.forbidden = %q, true)`, text)) }
	forbid(first, "of bob")
	forbid(second, "of ann")
	news := func(step string) {
		s.create(token, step+": of ann", "a", ann)
		s.create(token, step+": of bob", "a", bob)
		s.create(token, step+": public", "a", "")
		showsFirst(step+": public", tabs...)
		converge(tabs...)
	}
	news("two viewers")

	// One signs out, and in as the other: each has a token of their own.
	forbid(second, "of ")
	eval[bool](second, `(pb.authStore.clear(), true)`)
	news("a guest")
	forbid(second, "of bob")
	await(t, "another second", func() bool { return eval[bool](second, "Date.now() % 1000 > 500") }) // a token is of a second
	second.SignIn("ann@example.com", testPassword)
	news("the same viewer")

	// A new password ends all tokens. Who has no new one is a guest.
	forbid(first, "password: of ")
	eval[bool](second, fmt.Sprintf(`pb.collection("users").update(%q, {oldPassword: %q, password: %[3]q, passwordConfirm: %[3]q}).then(() => true)`,
		ann, testPassword, "another password"))
	second.SignIn("ann@example.com", "another password")
	news("password")
	forbid(first, "later: of ")
	news("later")
	second.Wait(`queries.own.result.items.some((row) => row.title === "later: of ann")`)
	forbid(first, "of bob")
	first.SignIn("ann@example.com", "another password")
	news("both")
}

// TestTabsOfOneViewerKeepTheirIdentity has one tab change the password that all have.
func TestTabsOfOneViewerKeepTheirIdentity(t *testing.T) {
	t.Parallel()
	s, token, tabs := startTabs(t, func(*tab) {})
	ann := s.user(token, "ann@example.com")
	s.create(token, "Of ann", "a", ann)
	tabs[1].SignIn("ann@example.com", testPassword)
	showsFirst("Of ann", tabs...)
	for _, p := range tabs {
		p.ForbidEmpty("own")
	}
	for i, p := range tabs {
		eval[bool](p, fmt.Sprintf(`pb.collection("users").update(%q, {oldPassword: %q, password: %[3]q, passwordConfirm: %[3]q}).then(() => true)`,
			ann, testPassword, testPassword))
		p.SignIn("ann@example.com", testPassword)
		s.create(token, fmt.Sprint("Of ann, too ", i), "a", ann)
		showsFirst(fmt.Sprint("Of ann, too ", i), tabs...)
		converge(tabs...)
	}
	s.API(token, http.MethodDelete, "/api/collections/users/records/"+ann, nil, nil)
	for _, p := range tabs {
		p.Wait(`!queries.own.result.items.some((row) => row.title.startsWith("Of ann"))`)
	}
}

// TestTabsForgetADeletedUser has the holder watch what the server does not tell of.
func TestTabsForgetADeletedUser(t *testing.T) {
	t.Parallel()
	s, token, first := startHarness(t)
	second := harnessBeside(first, s.URL)
	ann := s.user(token, "ann@example.com")
	s.create(token, "Of ann", "a", ann)
	first.SignIn("ann@example.com", testPassword)
	first.Live(`"users", {limit: 5}, "users"`)
	first.Converges("users")
	second.Wait(`pb.authStore.isValid`)
	second.Live(`"own", {limit: 5}`)
	second.Converges("own")
	if n := first.Requests("GET /api/realtime") + second.Requests("GET /api/realtime"); n != 1 {
		t.Fatalf("got %d streams, want one for both", n)
	}
	s.API(token, http.MethodDelete, "/api/collections/users/records/"+ann, nil, nil)
	second.Wait(`queries.own.result.items.length === 0`)
}
