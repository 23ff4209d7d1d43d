package modelriver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

const apiKey = "mr_live_0123456789abcdef"

func newClient(t *testing.T, apiURL string, timeout time.Duration, hosts ...string) *modelriver.Client {
	t.Helper()
	client, err := modelriver.NewClient(modelriver.ClientOptions{APIKey: apiKey, APIURL: apiURL, Hosts: hosts, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdle)
	return client
}

func newServer(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

// rawServer answers every connection with the bytes of answer once it has read
// something, and closes it.
func rawServer(t *testing.T, answer string) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 64<<10))
				_, _ = io.WriteString(conn, answer)
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

func TestSendCallback(t *testing.T) {
	t.Parallel()
	body := []byte(`{"data":{"score":9007199254740993,"ratio":1.0,"text":"é <b>"}}`)
	var got *http.Request
	var gotBody []byte
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		gotBody, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
	})
	status, err := newClient(t, server.URL, time.Minute).SendCallback(t.Context(), server.URL+"/v1/callback/c1?x=1", body)
	if status != http.StatusAccepted || err != nil {
		t.Fatalf("got %d, %v", status, err)
	}
	if got.Method != http.MethodPost || got.RequestURI != "/v1/callback/c1?x=1" {
		t.Errorf("got %s %s", got.Method, got.RequestURI)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer " + apiKey, "Content-Type": "application/json", "User-Agent": "PocketRiver",
	} {
		if values := got.Header.Values(name); len(values) != 1 || values[0] != want {
			t.Errorf("%s: got %q, want %q", name, values, want)
		}
	}
	if !bytes.Equal(gotBody, body) {
		t.Errorf("body: got %s", gotBody)
	}
}

func TestSendCallbackAnswers(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	rows := []struct {
		name       string
		status     int
		retryAfter string
		body       string
		retryable  bool
		after      time.Duration // at most a minute less, for a date
		text       string        // of the error; empty for success
	}{
		{name: "200", status: 200, body: `{"ok":true}`},
		{name: "201", status: 201},
		{name: "204", status: 204},
		{name: "299", status: 299},
		{name: "304 without a body", status: 304, text: "answered 304 Not Modified"},
		{name: "400 with a message", status: 400, body: "{\"error\":\n  \"data must be an object\"}", text: `answered 400 Bad Request: {"error": "data must be an object"}`},
		{name: "401", status: 401, body: "no", text: "answered 401 Unauthorized: no"},
		{name: "404", status: 404, text: "answered 404 Not Found"},
		{name: "408", status: 408, retryable: true, text: "answered 408 Request Timeout"},
		{name: "409", status: 409, text: "answered 409 Conflict"},
		{name: "410", status: 410, text: "answered 410 Gone"},
		{name: "425", status: 425, retryable: true, text: "answered 425 Too Early"},
		{name: "429 in seconds", status: 429, retryAfter: "7", retryable: true, after: 7 * time.Second, text: "answered 429 Too Many Requests"},
		{name: "429 as a date", status: 429, retryAfter: time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), retryable: true, after: time.Hour, text: "answered 429 Too Many Requests"},
		{name: "Retry-After as an old kind of date", status: 503, retryAfter: time.Now().Add(time.Hour).UTC().Format(time.ANSIC), retryable: true, after: time.Hour, text: "answered 503 Service Unavailable"},
		{name: "Retry-After in the past", status: 503, retryAfter: "Mon, 02 Jan 2006 15:04:05 GMT", retryable: true, text: "answered 503 Service Unavailable"},
		{name: "Retry-After of zero", status: 503, retryAfter: "0", retryable: true, text: "answered 503 Service Unavailable"},
		{name: "Retry-After below zero", status: 503, retryAfter: "-5", retryable: true, text: "answered 503 Service Unavailable"},
		{name: "Retry-After with a fraction", status: 503, retryAfter: "1.5", retryable: true, text: "answered 503 Service Unavailable"},
		{name: "Retry-After of words", status: 503, retryAfter: "soon", retryable: true, text: "answered 503 Service Unavailable"},
		{name: "Retry-After of a year", status: 503, retryAfter: "31536000", retryable: true, after: day, text: "answered 503 Service Unavailable"},
		{name: "Retry-After beyond a duration", status: 503, retryAfter: "9223372036854775807", retryable: true, after: day, text: "answered 503 Service Unavailable"},
		{name: "Retry-After beyond an integer", status: 503, retryAfter: "99999999999999999999999", retryable: true, after: day, text: "answered 503 Service Unavailable"},
		{name: "Retry-After as a date in the year 9999", status: 503, retryAfter: "Fri, 31 Dec 9999 23:59:59 GMT", retryable: true, after: day, text: "answered 503 Service Unavailable"},
		{name: "500", status: 500, body: "oops", retryable: true, text: "answered 500 Internal Server Error: oops"},
		{name: "502 in HTML", status: 502, body: "<h1>Bad\r\n\tGateway</h1>", retryable: true, text: "answered 502 Bad Gateway: <h1>Bad Gateway</h1>"},
		{name: "an unknown status", status: 599, retryable: true, text: "answered 599 "},
		{name: "echoed key", status: 400, body: "bad key " + apiKey + "!", text: "answered 400 Bad Request: bad key [API key]!"},
		{name: "echoed key where the reading ends", status: 400, body: strings.Repeat(" ", 4<<10-len(apiKey)+1) + apiKey, text: "answered 400 Bad Request"},
		{name: "invalid text", status: 400, body: "a\x00b\xffc", text: "answered 400 Bad Request: a\uFFFDb\uFFFDc"},
		{name: "a long message", status: 400, body: strings.Repeat("é", 301), text: "answered 400 Bad Request: " + strings.Repeat("é", 300) + "…"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				if row.retryAfter != "" {
					w.Header().Set("Retry-After", row.retryAfter)
				}
				w.WriteHeader(row.status)
				_, _ = io.WriteString(w, row.body)
			})
			status, err := newClient(t, server.URL, time.Minute).SendCallback(t.Context(), server.URL+"/c", []byte("{}"))
			if status != row.status {
				t.Errorf("status: got %d", status)
			}
			if row.text == "" {
				if err != nil {
					t.Errorf("error: %v", err)
				}
				return
			}
			var answered *modelriver.StatusError
			if !errors.As(err, &answered) {
				t.Fatalf("got %v, want a StatusError", err)
			}
			if answered.Code != row.status || answered.Error() != row.text {
				t.Errorf("got %d, %q, want %q", answered.Code, answered, row.text)
			}
			if modelriver.Retryable(err) != row.retryable {
				t.Errorf("Retryable: got %v", !row.retryable)
			}
			if after := answered.RetryAfter; after > row.after || after < row.after-min(row.after, time.Minute) {
				t.Errorf("RetryAfter: got %s, want %s", after, row.after)
			}
		})
	}
}

// Callbacks that end without an answer may pass later, and their errors tell no key.
func TestSendCallbackNetworkErrors(t *testing.T) {
	t.Parallel()
	closed := newServer(t, nil)
	closed.Close()
	for name, serverURL := range map[string]string{
		"refused":                      closed.URL,
		"closed without an answer":     rawServer(t, ""),
		"reset in the header":          rawServer(t, "HTTP/1.1 200 OK\r\nContent-Le"),
		"no HTTP":                      rawServer(t, "hello\r\n\r\n"),
		"no HTTP, echoes the key":      rawServer(t, "Bearer "+apiKey+"\r\n\r\n"),
		"odd status, echoes the key":   rawServer(t, "HTTP/1.1 "+apiKey+" x\r\n\r\n"),
		"odd header, echoes the key":   rawServer(t, "HTTP/1.1 200 OK\r\n"+apiKey+"\r\n\r\n"),
		"odd encoding, echoes the key": rawServer(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: "+apiKey+"\r\n\r\n"),
		"endless header":               rawServer(t, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1<<20)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, err := newClient(t, serverURL, time.Minute).SendCallback(t.Context(), serverURL+"/c", []byte("{}"))
			if status != 0 || err == nil || !modelriver.Retryable(err) {
				t.Fatalf("got %d, %v, want an error that may pass", status, err)
			}
			if strings.Contains(err.Error(), apiKey) || strings.Contains(err.Error(), serverURL) || len(err.Error()) > 1000 {
				t.Errorf("got error %q", err)
			}
		})
	}
}

// What comes after the status line does not change an accepted callback.
func TestSendCallbackAcceptedAllTheSame(t *testing.T) {
	t.Parallel()
	t.Run("reset in the body", func(t *testing.T) {
		t.Parallel()
		serverURL := rawServer(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		status, err := newClient(t, serverURL, time.Minute).SendCallback(t.Context(), serverURL+"/c", []byte("{}"))
		if status != 200 || err != nil {
			t.Errorf("got %d, %v", status, err)
		}
	})
	t.Run("a body that trickles without end", func(t *testing.T) {
		t.Parallel()
		server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, ".")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		})
		// With the hour of the timeout left, only the bound on reading ends it.
		status, err := newClient(t, server.URL, time.Hour).SendCallback(t.Context(), server.URL, []byte("{}"))
		if status != 200 || err != nil {
			t.Errorf("got %d, %v", status, err)
		}
	})
	t.Run("100 MB", func(t *testing.T) {
		t.Parallel()
		const size = 100 << 20
		written := make(chan int, 1)
		server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
			total, chunk := 0, make([]byte, 64<<10)
			for total < size {
				n, err := w.Write(chunk)
				total += n
				if err != nil {
					break
				}
			}
			written <- total
		})
		status, err := newClient(t, server.URL, time.Minute).SendCallback(t.Context(), server.URL, []byte("{}"))
		if status != 200 || err != nil {
			t.Errorf("got %d, %v", status, err)
		}
		if n := <-written; n >= size {
			t.Error("all of the answer was taken")
		}
	})
}

func TestSendCallbackTimeout(t *testing.T) {
	t.Parallel()
	hang := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that the server sees the client leave
		<-r.Context().Done()
	}
	t.Run("a server that hangs", func(t *testing.T) {
		t.Parallel()
		server := newServer(t, hang)
		status, err := newClient(t, server.URL, 50*time.Millisecond).SendCallback(t.Context(), server.URL, []byte("{}"))
		if status != 0 || err == nil || err.Error() != "no answer within 50ms" || !modelriver.Retryable(err) {
			t.Errorf("got %d, %v", status, err)
		}
	})
	t.Run("a context that is cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
			cancel()
			hang(w, r)
		})
		status, err := newClient(t, server.URL, time.Hour).SendCallback(ctx, server.URL, []byte("{}"))
		if status != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("got %d, %v", status, err)
		}
	})
}

// A redirect is an answer like any other: whoever it names gets neither key nor body.
func TestSendCallbackRedirect(t *testing.T) {
	t.Parallel()
	for _, code := range []int{301, 302, 303, 307, 308} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			var followed atomic.Bool
			other := newServer(t, func(w http.ResponseWriter, r *http.Request) { followed.Store(true) })
			server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, other.URL+"/steal", code)
			})
			// The other host is allowed too: not even then.
			client := newClient(t, server.URL, time.Minute, "127.0.0.1")
			status, err := client.SendCallback(t.Context(), server.URL+"/c", []byte("{}"))
			var answered *modelriver.StatusError
			if status != code || !errors.As(err, &answered) || modelriver.Retryable(err) {
				t.Errorf("got %d, %v", status, err)
			}
			if followed.Load() {
				t.Error("the redirect was followed")
			}
		})
	}
}

func TestSendCallbackForeignHost(t *testing.T) {
	t.Parallel()
	var asked atomic.Bool
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) { asked.Store(true) })
	status, err := newClient(t, "https://api.modelriver.com", time.Minute).SendCallback(t.Context(), server.URL, []byte("{}"))
	if status != 0 || !errors.Is(err, modelriver.ErrCallbackHost) || modelriver.Retryable(err) {
		t.Errorf("got %d, %v", status, err)
	}
	if asked.Load() {
		t.Error("something was sent")
	}
}

func TestSendCallbackReusesConnections(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	connections := map[string]bool{}
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		connections[r.RemoteAddr] = true
		n := len(connections)
		mu.Unlock()
		if n%2 == 0 {
			w.WriteHeader(500)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 4000))
	})
	client := newClient(t, server.URL, time.Minute)
	for range 20 {
		_, _ = client.SendCallback(t.Context(), server.URL, []byte("{}"))
	}
	if len(connections) != 1 {
		t.Errorf("20 callbacks took %d connections", len(connections))
	}
}

// A program that replaced http.DefaultTransport, as tracing libraries do, can have a
// Client. Not parallel: it changes a global.
// A connection that is idle is closed by the client, before a server would.
func TestIdleConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	closed := make(chan bool, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- true
		}
	}
	server.Start()
	defer server.Close()
	client := newClient(t, server.URL, time.Minute)
	if _, err := client.SendCallback(t.Context(), server.URL+"/callback", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-time.After(15 * time.Second):
		t.Error("after 15 seconds the connection was still open")
	}
}

func TestNewClientWithoutDefaultTransport(t *testing.T) {
	was := http.DefaultTransport
	http.DefaultTransport = http.NewFileTransport(http.Dir("."))
	defer func() { http.DefaultTransport = was }()
	server := newServer(t, func(http.ResponseWriter, *http.Request) {})
	if _, err := newClient(t, server.URL, time.Minute).SendCallback(t.Context(), server.URL, nil); err != nil {
		t.Error(err)
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	hosts := []string{
		"Hooks.Example.com", "other.example.com:8443", "[2001:db8::1]:8443", "2001:db8::2", "127.0.0.1", "localhost:4000", "::1",
	}
	rows := []struct{ name, url, want string }{ // refused if want is empty
		{"the API", "https://api.modelriver.com/v1/callback/x", "api.modelriver.com:443"},
		{"default port named", "https://api.modelriver.com:443/x", "api.modelriver.com:443"},
		{"empty port", "https://api.modelriver.com:/x", "api.modelriver.com:443"},
		{"upper case", "HTTPS://API.ModelRiver.COM/x", "api.modelriver.com:443"},
		{"query and fragment", "https://api.modelriver.com?a=@b#c", "api.modelriver.com:443"},
		{"a listed host", "https://hooks.example.com/", "hooks.example.com:443"},
		{"a listed port", "https://other.example.com:8443/", "other.example.com:8443"},
		{"IPv6 with a listed port", "https://[2001:DB8::1]:8443/", "[2001:db8::1]:8443"},
		{"IPv6 listed without brackets", "https://[2001:db8::2]/", "[2001:db8::2]:443"},
		{"loopback, any port", "http://127.0.0.1:51234/x", "127.0.0.1:51234"},
		{"loopback, default port of http", "http://127.0.0.1/x", "127.0.0.1:80"},
		{"loopback, https", "https://127.0.0.1/x", "127.0.0.1:443"},
		{"loopback, listed port", "http://localhost:4000/x", "localhost:4000"},
		{"IPv6 loopback", "http://[::1]:9/x", "[::1]:9"},

		{"userinfo that looks like the host", "https://api.modelriver.com@evil.example/x", ""},
		{"userinfo with a password", "https://api.modelriver.com:443@evil.example/x", ""},
		{"userinfo at the right host", "https://user:pw@api.modelriver.com/x", ""},
		{"empty userinfo", "https://@api.modelriver.com/x", ""},
		{"two at signs", "https://evil.example@@api.modelriver.com/x", ""},
		{"backslash before at", `https://evil.example\@api.modelriver.com/x`, ""},
		{"backslash after the host", `https://api.modelriver.com\@evil.example/x`, ""},
		{"backslashes for slashes", `https:\\api.modelriver.com\x`, ""},
		{"another host", "https://evil.example/x", ""},
		{"the host as prefix", "https://api.modelriver.com.evil.example/x", ""},
		{"the host as suffix", "https://evilapi.modelriver.com/x", ""},
		{"a parent domain", "https://modelriver.com/x", ""},
		{"the host in the path", "https://evil.example/https://api.modelriver.com/x", ""},
		{"trailing dot", "https://api.modelriver.com./x", ""},
		{"another port", "https://api.modelriver.com:8443/x", ""},
		{"port with a leading zero", "https://api.modelriver.com:0443/x", ""},
		{"port that is no number", "https://api.modelriver.com:https/x", ""},
		{"listed host on the default port", "https://other.example.com/", ""},
		{"listed loopback host on another port", "http://localhost:4001/x", ""},
		{"unlisted loopback address", "http://127.0.0.2/x", ""},
		{"loopback written otherwise", "http://127.1/x", ""},
		{"loopback as a mapped address", "http://[::ffff:127.0.0.1]/x", ""},
		{"IPv6 with a zone", "http://[::1%25lo]:9/x", ""},
		{"IPv6 without brackets", "http://::1/x", ""},
		{"Cyrillic look-alike", "https://\u0430pi.modelriver.com/x", ""},
		{"dotted capital I, which folds to another host", "https://ap\u0130.modelr\u0130ver.com/x", ""},
		{"the same, escaped", "https://ap%C4%B0.modelr%C4%B0ver.com/x", ""},
		{"Kelvin sign", "https://hoo\u212As.example.com/x", ""},
		{"full-width letters", "https://\uff41pi.modelriver.com/x", ""},
		{"ideographic full stop", "https://api\u3002modelriver.com/x", ""},
		{"escaped host", "https://%61pi.modelriver.com/x", ""},
		{"http", "http://api.modelriver.com/x", ""},
		{"http on the port of https", "http://api.modelriver.com:443/x", ""},
		{"http to a listed host", "http://hooks.example.com/x", ""},
		{"file", "file:///etc/passwd", ""},
		{"file with the host", "file://api.modelriver.com/x", ""},
		{"ftp", "ftp://api.modelriver.com/x", ""},
		{"javascript", "javascript:alert(1)", ""},
		{"unix", "unix:///run/x.sock", ""},
		{"empty", "", ""},
		{"blank", "  ", ""},
		{"relative", "/v1/callback/x", ""},
		{"without a scheme", "api.modelriver.com/v1/callback/x", ""},
		{"scheme-relative", "//api.modelriver.com/x", ""},
		{"without a host", "https:///x", ""},
		{"without slashes", "https:api.modelriver.com/x", ""},
		{"only a port", "https://:443/x", ""},
		{"leading space", " https://api.modelriver.com/x", ""},
		{"space in the host", "https://api.modelriver.com /x", ""},
		{"line feed", "https://api.modelriver.com/x\nHost: evil.example", ""},
		{"carriage return", "https://api.modelriver.com\r/x", ""},
		{"NUL", "https://api.modelriver.com\x00.evil.example/x", ""},
		{"tab", "https://api.\tmodelriver.com/x", ""},
		{"DEL", "https://api.modelriver.com/\x7f", ""},
		{"bad escape", "https://api.modelriver.com/%zz", ""},
	}
	client := newClient(t, "https://api.modelriver.com/v1", time.Minute, hosts...)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got, err := client.Host(row.url)
			if got != row.want || (err == nil) != (row.want != "") || err != nil && !errors.Is(err, modelriver.ErrCallbackHost) {
				t.Errorf("Host(%q): got %q, %v, want %q", row.url, got, err, row.want)
			}
		})
	}
}

func TestNewClientErrors(t *testing.T) {
	t.Parallel()
	const good = "https://api.modelriver.com"
	rows := []struct {
		name, key, apiURL string
		host              string
		timeout           time.Duration
		want              string // in the error
	}{
		{"key with a line feed", "key\n", good, "", 1, "API key"},
		{"key with a space", "a b", good, "", 1, "API key"},
		{"key with a control character", "a\x7f", good, "", 1, "API key"},
		{"empty API URL", "k", "", "", 1, "API URL"},
		{"API URL without a scheme", "k", "api.modelriver.com", "", 1, "use a form like https://api.modelriver.com"},
		{"API URL without a host", "k", "https:///v1", "", 1, "API URL"},
		{"API URL with a query", "k", "https://api.modelriver.com?a=b", "", 1, "API URL"},
		{"API URL with a fragment", "k", "https://api.modelriver.com/#", "", 1, "API URL"},
		{"API URL with userinfo", "k", "https://k@api.modelriver.com", "", 1, "API URL"},
		{"API URL over http", "k", "http://api.modelriver.com", "", 1, "only https"},
		{"API URL over ftp", "k", "ftp://api.modelriver.com", "", 1, "only https"},
		{"API URL with other letters", "k", "https://\u0430pi.modelriver.com", "", 1, "API URL"},
		{"API URL that is none", "k", "https://%zz", "", 1, "API URL"},
		{"empty host", "k", good, " ", 1, "callback host"},
		{"host as a URL", "k", good, "https://hooks.example.com", 1, "use host or host:port"},
		{"host with a path", "k", good, "hooks.example.com/x", 1, "callback host"},
		{"host with a query", "k", good, "hooks.example.com?x=1", 1, "callback host"},
		{"host with userinfo", "k", good, "a@hooks.example.com", 1, "callback host"},
		{"host with a port that is no number", "k", good, "hooks.example.com:x", 1, "callback host"},
		{"host with a space", "k", good, "hooks example.com", 1, "callback host"},
		{"host with other letters", "k", good, "h\u00f6oks.example.com", 1, "callback host"},
		{"host with a wildcard", "k", good, "*.example.com", 1, "callback host"},
		{"only a port", "k", good, ":443", 1, "callback host"},
		{"no timeout", "k", good, "", 0, "timeout"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var hosts []string
			if row.host != "" {
				hosts = []string{row.host}
			}
			_, err := modelriver.NewClient(modelriver.ClientOptions{APIKey: row.key, APIURL: row.apiURL, Hosts: hosts, Timeout: row.timeout})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
			if row.want == "API key" && err != nil && strings.Contains(err.Error(), row.key) {
				t.Errorf("the error tells the key: %q", err)
			}
		})
	}
}

func TestRetryable(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("connection refused"), true},
		{&url.Error{Op: "Post", Err: io.EOF}, true},
		{fmt.Errorf("send: %w", modelriver.ErrCallbackHost), false},
		{fmt.Errorf("send: %w", &modelriver.StatusError{Code: 503}), true},
		{fmt.Errorf("send: %w", &modelriver.StatusError{Code: 422}), false},
	} {
		if got := modelriver.Retryable(row.err); got != row.want {
			t.Errorf("Retryable(%v): got %v", row.err, got)
		}
	}
}

func TestCallbackBody(t *testing.T) {
	t.Parallel()
	savedAt := time.Date(2026, 1, 5, 13, 34, 56, 789_999_999, time.FixedZone("", 3600))
	const set = `"id":"r1","saved_at":"2026-01-05T12:34:56.789Z"`
	long := strings.Repeat(`long é <\u003c \ud800 \u0000`, 1<<20/27)
	rows := []struct{ name, data, want string }{ // an error if want is empty
		{"object", `{"title":"T"}`, `{"title":"T",` + set + `}`},
		{"empty object", `{}`, `{` + set + `}`},
		{"object with id and saved_at", `{"id":7,"title":"T","saved_at":null}`, `{"title":"T",` + set + `}`},
		{"object with an escaped id", `{"\u0069d":7,"title":"T"}`, `{"title":"T",` + set + `}`},
		{"object with two ids", `{"id":7,"a":1,"id":8}`, `{"a":1,` + set + `}`},
		{"object with an id deeper down", `{"a":{"id":7}}`, `{"a":{"id":7},` + set + `}`},
		{"object with the same name twice", `{"a":1,"a":2}`, `{"a":1,"a":2,` + set + `}`},
		{"object with white space", " {\n \"a\" : [ 1 , 2 ] ,\t\"b\":{ } }\r\n", "{\"a\" : [ 1 , 2 ],\"b\":{ }," + set + `}`},
		{"array", `[1,"a"]`, `{"items":[1,"a"],` + set + `}`},
		{"array after white space", "\n[1]", "{\"items\":[1]," + set + `}`},
		{"string", `"plain <b> \u00e9"`, `{"content":"plain <b> \u00e9",` + set + `}`},
		{"empty string", `""`, `{"content":"",` + set + `}`},
		{"number", `9007199254740993`, `{"content":9007199254740993,` + set + `}`},
		{"false", `false`, `{"content":false,` + set + `}`},
		{"null", `null`, `{` + set + `}`},
		{"null in white space", " null\n", `{` + set + `}`},
		{"nothing", ``, `{` + set + `}`},
		{"numbers as sent", `{"a":9007199254740993,"b":1.0,"c":1e400,"d":-0,"e":0.1000}`, `{"a":9007199254740993,"b":1.0,"c":1e400,"d":-0,"e":0.1000,` + set + `}`},
		{"text as sent", `{"a":"é \ud83d\ude00 \ud800 \u0000 <&> \/","é":"` + "\u2028" + `"}`, `{"a":"é \ud83d\ude00 \ud800 \u0000 <&> \/","é":"` + "\u2028" + `",` + set + `}`},
		{"1 MB", `{"a":"` + long + `"}`, `{"a":"` + long + `",` + set + `}`},
		{"1 MB of text", `"` + long + `"`, `{"content":"` + long + `",` + set + `}`},
		{"no JSON", `nonsense`, ""},
		{"members for a value", `1,"x":2`, ""},
		{"cut off", `{"a":1`, ""},
		{"more than one value", `{"a":1}{"b":2}`, ""},
		{"more after the value", `{"a":1}x`, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := modelriver.CallbackBody([]byte(row.data), "aiContent", "r1", savedAt)
			if row.want == "" {
				if err == nil {
					t.Errorf("got %s, want an error", got)
				}
				return
			}
			want := `{"data":` + row.want + `,"task_id":"pocketbase_r1","metadata":{"database":"pocketbase","table":"aiContent","record_id":"r1"}}`
			if err != nil || string(got) != want {
				t.Errorf("got  %.300s, %v\nwant %.300s", got, err, want)
			}
			if !json.Valid(got) {
				t.Error("not valid JSON")
			}
		})
	}
}

func TestErrorCallbackBody(t *testing.T) {
	t.Parallel()
	for _, message := range []string{"no title", "", "é \"quoted\"\n<b>\x00", "half a character \xff", strings.Repeat("x", 1<<20)} {
		body := modelriver.ErrorCallbackBody(message)
		var got map[string]string
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatalf("%.100s: %v", body, err)
		}
		want := strings.ToValidUTF8(message, "\uFFFD")
		if len(got) != 2 || got["error"] != "processing_failed" || got["message"] != want {
			t.Errorf("got %.100s", body)
		}
	}
}

// The protocol package is for anyone's receiver: it brings nothing along.
func TestOnlyStandardLibrary(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	want := []string{"github.com/pocketriver/pocketriver/hooks/internal/rawjson", "github.com/pocketriver/pocketriver/hooks/modelriver"}
	if got := strings.Fields(string(out)); !slices.Equal(got, want) {
		t.Errorf("depends on %s", got)
	}
}

// A client of the caller's own carries the callbacks, and is not changed by that: hosts
// stay pinned, and redirects are not followed.
func TestSendCallbackWithAnHTTPClientOfOnesOwn(t *testing.T) {
	t.Parallel()
	var stolen atomic.Int32
	other := newServer(t, func(http.ResponseWriter, *http.Request) { stolen.Add(1) })
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}
	})
	var carried atomic.Int32
	own := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		carried.Add(1)
		return http.DefaultTransport.RoundTrip(r)
	})}
	client, err := modelriver.NewClient(modelriver.ClientOptions{APIURL: server.URL, Timeout: time.Minute, HTTPClient: own})
	if err != nil {
		t.Fatal(err)
	}
	if status, err := client.SendCallback(t.Context(), server.URL+"/ok", []byte(`{}`)); status != 200 || err != nil {
		t.Errorf("got %d, %v", status, err)
	}
	if status, err := client.SendCallback(t.Context(), server.URL+"/redirect", []byte(`{}`)); status != 307 || err == nil {
		t.Errorf("a redirect: got %d, %v", status, err)
	}
	if _, err := client.SendCallback(t.Context(), "https://example.com/", []byte(`{}`)); !errors.Is(err, modelriver.ErrCallbackHost) {
		t.Errorf("another host: got %v", err)
	}
	if carried.Load() != 2 || stolen.Load() != 0 || own.CheckRedirect != nil {
		t.Errorf("carried %d, stolen %d, changed %t", carried.Load(), stolen.Load(), own.CheckRedirect != nil)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
