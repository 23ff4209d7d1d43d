package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// newAuthServer returns a server on which anyone signs up in two auth collections, by
// batch and by OAuth2 too.
func newAuthServer(t *testing.T) *testServer {
	t.Helper()
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/token" {
			fmt.Fprint(w, `{"access_token":"token","token_type":"Bearer"}`)
			return
		}
		fmt.Fprint(w, `{"sub":"someone","email":"someone@example.com","email_verified":true}`)
	}))
	t.Cleanup(provider.Close)
	server := newTestServer(t, testConfig())
	server.Settings().Batch.Enabled = true
	server.Settings().Batch.MaxRequests = 10
	server.Settings().Batch.Timeout = 60
	if err := server.Save(server.Settings()); err != nil {
		t.Fatal(err)
	}
	members := core.NewAuthCollection("members")
	users, err := server.FindCollectionByNameOrId("users")
	if err != nil {
		t.Fatal(err)
	}
	for _, collection := range []*core.Collection{users, members} {
		collection.Fields.GetByName("password").(*core.PasswordField).Cost = 4 // passwords are many here
		collection.CreateRule = types.Pointer("")
		collection.UpdateRule = types.Pointer("id = @request.auth.id")
		collection.OAuth2.Enabled = true
		collection.OAuth2.Providers = []core.OAuth2ProviderConfig{{
			Name: "oidc", ClientId: "id", ClientSecret: "secret",
			AuthURL: provider.URL + "/auth", TokenURL: provider.URL + "/token", UserInfoURL: provider.URL + "/user",
		}}
		if err := server.Save(collection); err != nil {
			t.Fatal(err)
		}
	}
	return server
}

// signUp is the body of a sign-up; an empty id is left out.
func signUp(id, email string) string {
	body := map[string]string{"email": email, "password": "correct horse", "passwordConfirm": "correct horse"}
	if id != "" {
		body["id"] = id
	}
	raw, _ := json.Marshal(body)
	return string(raw)
}

// Nobody takes the id of a user who has content, so that nobody reads what was another's.
func TestUserIdOfContentIsNotTaken(t *testing.T) {
	t.Parallel()
	create := func(collection string, body func(id string) string) func(*testing.T, *testServer, string, string) (int, string) {
		return func(t *testing.T, server *testServer, token, id string) (int, string) {
			return server.call(t, token, http.MethodPost, "/api/collections/"+collection+"/records", body(id))
		}
	}
	batch := func(method, collection string) func(*testing.T, *testServer, string, string) (int, string) {
		return func(t *testing.T, server *testServer, token, id string) (int, string) {
			return server.call(t, token, http.MethodPost, "/api/batch", fmt.Sprintf(
				`{"requests":[{"method":%q,"url":"/api/collections/%s/records","body":%s}]}`, method, collection, signUp(id, "taker@example.com")))
		}
	}
	for _, row := range []struct {
		name string
		take func(t *testing.T, server *testServer, token, id string) (int, string)
	}{
		{"by signing up", create("users", func(id string) string { return signUp(id, "taker@example.com") })},
		{"by signing up in another collection", create("members", func(id string) string { return signUp(id, "taker@example.com") })},
		{"by an id that is completed", create("users", func(id string) string {
			return strings.Replace(signUp("", "taker@example.com"), "{", `{"id:autogenerate":"","id":"`+id+`",`, 1)
		})},
		{"by a batch", batch("POST", "users")},
		{"by an upsert", batch("PUT", "users")},
		{"by an upsert in another collection", batch("PUT", "members")},
		{"by OAuth2", func(t *testing.T, server *testServer, token, id string) (int, string) {
			return server.call(t, token, http.MethodPost, "/api/collections/users/auth-with-oauth2", fmt.Sprintf(
				`{"provider":"oidc","code":"x","redirectURL":"http://127.0.0.1/","createData":{"id":%q}}`, id))
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := newAuthServer(t)
			owner, _ := newUser(t, server, "owner@example.com")
			_, other := newUser(t, server, "other@example.com")
			server.mustPost(t, fmt.Sprintf(`{"type":"task.completed","channel_id":"c1","data":{},"customer_data":{"user_id":%q}}`, owner.Id))
			if err := server.Delete(owner); err != nil {
				t.Fatal(err)
			}
			for name, token := range map[string]string{"a guest": "", "a user": other} {
				status, body := row.take(t, server, token, owner.Id)
				for _, collection := range []string{"users", "members"} {
					if _, err := server.FindRecordById(collection, owner.Id); err == nil {
						t.Errorf("%s has it in %s: got %d %s", name, collection, status, body)
					}
				}
			}
		})
	}
}

// All else about ids is as in PocketBase.
func TestUserIdsAreAsInPocketBase(t *testing.T) {
	t.Parallel()
	server := newAuthServer(t)
	owner, ownerToken := newUser(t, server, "owner@example.com")
	server.mustPost(t, fmt.Sprintf(`{"type":"task.completed","channel_id":"c1","data":{},"customer_data":{"user_id":%q}}`, owner.Id))
	const users = "/api/collections/users/records"

	// An id with content is answered as one that a user has, so that it tells nobody of
	// content.
	_, taken := server.call(t, "", http.MethodPost, users, signUp(owner.Id, "new1@example.com"))
	server.mustPost(t, `{"type":"task.completed","channel_id":"c2","data":{},"customer_data":{"user_id":"namedbycontent0"}}`)
	status, named := server.call(t, "", http.MethodPost, users, signUp("namedbycontent0", "new1@example.com"))
	if status != 400 || named != taken || !strings.Contains(named, `"id":{"code":"validation_not_unique"`) {
		t.Errorf("got %d %s, want what the id of a user is answered: %s", status, named, taken)
	}

	for name, body := range map[string]string{
		"without an id":                  signUp("", "new2@example.com"),
		"with an id without content":     signUp("anidofmychoice0", "new3@example.com"),
		"with an id of another's prefix": signUp("namedbycontent1", "new4@example.com"),
	} {
		if status, body := server.call(t, "", http.MethodPost, users, body); status != 200 {
			t.Errorf("sign-up %s: got %d %s, want 200", name, status, body)
		}
	}
	if status, body := server.call(t, ownerToken, http.MethodPatch, users+"/"+owner.Id, `{"id":"namedbycontent0","name":"New"}`); status != 400 {
		t.Errorf("another id by an update: got %d %s, want 400", status, body)
	}
	upsert := fmt.Sprintf(`{"requests":[{"method":"PUT","url":%q,"body":{"id":%q,"name":"New"}}]}`, users, owner.Id)
	if status, body := server.call(t, ownerToken, http.MethodPost, "/api/batch", upsert); status != 200 {
		t.Errorf("an upsert of oneself: got %d %s, want 200", status, body)
	}
	root := superuserToken(t, server)
	if status, body := server.call(t, root, http.MethodPost, users, signUp("namedbycontent0", "new5@example.com")); status != 200 {
		t.Errorf("a superuser: got %d %s, want 200", status, body)
	}
	base := core.NewBaseCollection("notes")
	base.CreateRule = types.Pointer("")
	if err := server.Save(base); err != nil {
		t.Fatal(err)
	}
	if status, body := server.call(t, "", http.MethodPost, "/api/collections/notes/records", `{"id":"namedbycontent0"}`); status != 200 {
		t.Errorf("a collection without users: got %d %s, want 200", status, body)
	}
}

// Content that was refused is content still to come.
func TestUserIdOfRefusedContentIsNotTaken(t *testing.T) {
	t.Parallel()
	server := newAuthServer(t)
	server.OnRecordCreate(store.Content).BindFunc(func(*core.RecordEvent) error { return errors.New("not yet") })
	server.mustPost(t, `{"type":"task.completed","channel_id":"c1","data":{},"customer_data":{"user_id":"namedbycontent0"}}`)
	status, body := server.call(t, "", http.MethodPost, "/api/collections/users/records", signUp("namedbycontent0", "new@example.com"))
	if status != 400 {
		t.Errorf("got %d %s, want 400", status, body)
	}
}
