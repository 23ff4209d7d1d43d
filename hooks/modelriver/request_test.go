package modelriver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestRequestBody(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, input, want string }{
		{"an empty input", `{}`,
			`{"request_id":"r1","user_id":"u1","metadata":{"request_id":"r1","user_id":"u1"},"workflow":"w"}`},
		{"numbers and metadata stay", `{"n":1.10,"big":12345678901234567890,"metadata":{"thread":7}}`,
			`{"n":1.10,"big":12345678901234567890,"request_id":"r1","user_id":"u1","metadata":{"thread":7,"request_id":"r1","user_id":"u1"},"workflow":"w"}`},
		{"the server's members are set last", `{"workflow":"x","user_id":"x","request_id":"x","metadata":{"user_id":"x","request_id":"x"}}`,
			`{"request_id":"r1","user_id":"u1","metadata":{"request_id":"r1","user_id":"u1"},"workflow":"w"}`},
		{"no metadata", `{"metadata":null}`,
			`{"request_id":"r1","user_id":"u1","metadata":{"request_id":"r1","user_id":"u1"},"workflow":"w"}`},
	} {
		got, err := RequestBody("w", json.RawMessage(row.input), "r1", "u1")
		if err != nil || string(got) != row.want {
			t.Errorf("%s: got %s %v, want %s", row.name, got, err, row.want)
		}
	}
	for _, input := range []string{``, `null`, `[]`, `"x"`, `{"metadata":1}`, `{`} {
		if got, err := RequestBody("w", json.RawMessage(input), "r1", "u1"); !errors.Is(err, ErrUnfitInput) {
			t.Errorf("%s: got %s %v, want ErrUnfitInput", input, got, err)
		}
	}
}

// What the client knows of a request after each way an attempt can end.
func TestAsk(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	hijacked := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			conn, _, _ := w.(http.Hijacker).Hijack()
			_, _ = io.WriteString(conn, text)
			conn.Close()
		}
	}
	const key = "mr_live_key"
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		want   Asked
		failed bool
	}{
		{"taken", answer(200, `{"status":"pending","channel_id":"c1","ws_token":"t"}`), Asked{Status: 200, ChannelID: "c1"}, false},
		{"a number for a channel", answer(200, `{"channel_id":12}`), Asked{Status: 200, ChannelID: "12"}, false},
		{"an overlong channel", answer(200, `{"channel_id":"`+strings.Repeat("c", 1001)+`"}`), Asked{Status: 200}, false},
		{"an error in a 200", answer(200, `{"data":null,"error":{"message":"no provider","details":{}}}`), Asked{Status: 200, Message: "no provider"}, false},
		{"an error as text", answer(200, `{"error":"no provider"}`), Asked{Status: 200, Message: "no provider"}, false},
		{"an error by its status", answer(200, `{"status":"error","message":"no provider"}`), Asked{Status: 200, Message: "no provider"}, false},
		{"an error without a message", answer(200, `{"error":{"code":1}}`), Asked{Status: 200, Message: "ModelRiver reported an error without a message"}, false},
		{"no error", answer(200, `{"channel_id":"c1","error":null,"message":"success"}`), Asked{Status: 200, ChannelID: "c1"}, false},
		{"not JSON", answer(200, `<html>`), Asked{Status: 200}, false},
		{"refused", answer(400, `{"error":{"message":"the key `+key+` is wrong"}}`), Asked{Status: 400, Message: "the key [API key] is wrong"}, false},
		{"refused by a proxy", answer(502, `<html>`), Asked{Status: 502}, false},
		{"limited", answer(429, `{}`), Asked{Status: 429}, false},
		{"cut off before the answer", hijacked(""), Asked{}, true},
		{"cut off in the answer", hijacked("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"channel_id\":\"c1\""), Asked{Status: 200}, true},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, Asked{Status: 307}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1/ai/async" || r.Method != http.MethodPost || r.Header.Get("Authorization") != "Bearer "+key {
					t.Errorf("got %s %s %v", r.Method, r.URL, r.Header)
				}
				row.answer(w, r)
			}))
			defer server.Close()
			client, err := NewClient(ClientOptions{APIKey: key, APIURL: server.URL + "/", Timeout: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			got := client.Ask(context.Background(), []byte(`{}`))
			if !got.Written || (got.Err != nil) != row.failed {
				t.Errorf("got %+v, want it written", got)
			}
			if got.RetryAfter != 0 && got.RetryAfter != 7*time.Second {
				t.Errorf("Retry-After: got %s", got.RetryAfter)
			}
			got.Written, got.Err, got.RetryAfter = false, nil, 0
			if got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}

// Only what never reached a connection may be sent again.
func TestAskKnowsWhatWasNotWritten(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	listener.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		<-r.Context().Done()
	}))
	defer silent.Close()
	for _, row := range []struct {
		name, url string
		written   bool
	}{
		{"nobody listens", "http://" + closed, false},
		{"no TLS there", "https://" + strings.TrimPrefix(plain.URL, "http://"), false},
		{"no answer in time", silent.URL, true},
	} {
		client, err := NewClient(ClientOptions{APIURL: row.url, Timeout: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if got := client.Ask(context.Background(), []byte(`{}`)); got.Written != row.written || got.Err == nil || got.Status != 0 {
			t.Errorf("%s: got %+v, want written %t", row.name, got, row.written)
		}
	}
}
