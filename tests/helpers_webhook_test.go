package tests

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// Send posts payload as a signed webhook and returns the status of the answer, or 0 if
// there was none.
func (s *server) Send(payload []byte) int {
	s.t.Helper()
	request, err := http.NewRequest(http.MethodPost, s.URL+"/webhooks/modelriver", bytes.NewReader(payload))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := modelriver.Sign(request.Header, "body", testSecret, time.Now(), payload); err != nil {
		s.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	return response.StatusCode
}

// mustSend sends a webhook, a millisecond after the one before at least: those of one millisecond are
// listed by their ids.
func (s *server) mustSend(payload []byte) {
	s.t.Helper()
	time.Sleep(time.Millisecond)
	if status := s.Send(payload); status != http.StatusOK {
		s.t.Fatalf("webhook: got %d, want 200", status)
	}
}

// sendUnsigned posts what no secret signed, and returns the status of the answer.
func (s *server) sendUnsigned() int {
	s.t.Helper()
	request, err := http.NewRequest(http.MethodPost, s.URL+"/webhooks/modelriver", bytes.NewReader(payload("c", "Title", "")))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("mr-signature", strings.Repeat("0", 64))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// postWebhook posts to the server's webhooks exactly what it is given.
func postWebhook(t testing.TB, s *server, header http.Header, body string) (status int, answer string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, s.URL+"/webhooks/modelriver", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

func sign(secret, signed string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return hex.EncodeToString(mac.Sum(nil))
}

// payload returns a webhook's payload.
func payload(channel, title, more string) []byte {
	return fmt.Appendf(nil, `{"type":"task.ai_generated","event":"new_content","channel_id":%q,
		"ai_response":{"data":{"title":%q,"description":"A text."}},"customer_data":{"category":"stories"}%s}`, channel, title, more)
}

func userPayload(channel, title, body, user, callbackURL string) []byte {
	return fmt.Appendf(nil, `{"type":"task.ai_generated","channel_id":%q,"ai_response":{"data":{"title":%q,"body":%q}},"callback_url":"%s/v1/callback/%[1]s","customer_data":{"user_id":%[5]q}}`,
		channel, title, body, callbackURL, user)
}

// burst sends n webhooks, several at a time.
func burst(t testing.TB, s *server, n int) {
	t.Helper()
	var next atomic.Int64
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if status := s.Send(payload(fmt.Sprint("burst-", i), fmt.Sprint("Burst ", i), "")); status != 200 {
					t.Errorf("webhook: got %d, want 200", status)
				}
			}
		})
	}
	senders.Wait()
}

// receivePosts returns a server that takes POSTs, and what they bring.
func receivePosts(t testing.TB, status int) (string, <-chan string) {
	received := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(status)
		received <- string(body)
	}))
	t.Cleanup(server.Close)
	return server.URL, received
}

// nextBody returns what the next POST brings.
func nextBody(t testing.TB, received <-chan string) string {
	t.Helper()
	select {
	case body := <-received:
		return body
	case <-time.After(patience):
		t.Fatal("nothing came within a minute")
		return ""
	}
}

func wantBody(t testing.TB, received <-chan string, part string) {
	t.Helper()
	if body := nextBody(t, received); !strings.Contains(body, part) {
		t.Errorf("got %s, want %s in it", body, part)
	}
}

// answersByPath takes ModelRiver's place: the path of a callback says how it is answered.
func answersByPath(t testing.TB) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "refused"):
			http.Error(w, "a long reason "+strings.Repeat("x", 200), http.StatusBadRequest)
		case strings.Contains(r.URL.Path, "later"):
			http.Error(w, "later", http.StatusServiceUnavailable)
		case strings.Contains(r.URL.Path, "slow"):
			time.Sleep(300 * time.Millisecond)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func callbackURL(server *httptest.Server, channel string) string {
	return fmt.Sprintf(`,"callback_url":%q`, server.URL+"/v1/callback/"+channel)
}
