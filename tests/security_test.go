package tests

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/tools/archive"
)

// postRaw posts to the server's webhooks exactly what it is given.
func postRaw(t testing.TB, s *server, header http.Header, body string) (status int, answer string) {
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

func count(t testing.TB, db *dbx.DB, from string) (n int) {
	t.Helper()
	if err := db.NewQuery("SELECT COUNT(*) FROM " + from).Row(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestForgedWebhooks(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	db := openDatabase(t, s.Dir)
	const body = `{"type":"task.ai_generated","channel_id":"forged","ai_response":{"data":{"title":"T","price":1.5}}}`
	const data = `{"channel_id":"forged","data":` + body + `}`
	const now = "1767225600"
	good := sign(testSecret, body)
	for _, row := range []struct {
		name   string
		header http.Header
		body   string
	}{
		{"no signature", http.Header{}, body},
		{"an empty signature", http.Header{"Mr-Signature": {""}}, body},
		{"another secret", http.Header{"Mr-Signature": {sign("other-secret", body)}}, body},
		{"the empty secret", http.Header{"Mr-Signature": {sign("", body)}}, body},
		{"a blank secret", http.Header{"Mr-Signature": {sign(" ", body)}}, body},
		{"the secret with a space", http.Header{"Mr-Signature": {sign(testSecret+" ", body)}}, body},
		{"a truncated signature", http.Header{"Mr-Signature": {good[:62]}}, body},
		{"a longer signature", http.Header{"Mr-Signature": {good + "00"}}, body},
		{"no hex", http.Header{"Mr-Signature": {strings.Repeat("z", 64)}}, body},
		{"a prefix", http.Header{"Mr-Signature": {"sha256=" + good}}, body},
		{"two signatures", http.Header{"Mr-Signature": {good, good}}, body},
		{"two signatures, one forged", http.Header{"Mr-Signature": {strings.Repeat("0", 64), good}}, body},
		{"two signatures in one header", http.Header{"Mr-Signature": {good + "," + good}}, body},
		{"a changed body", http.Header{"Mr-Signature": {good}}, strings.Replace(body, "1.5", "9.5", 1)},
		{"a truncated body", http.Header{"Mr-Signature": {good}}, body[:len(body)-1]},
		{"a longer body", http.Header{"Mr-Signature": {good}}, body + " "},
		{"members in another order", http.Header{"Mr-Signature": {good}}, `{"channel_id":"forged","type":"task.ai_generated","ai_response":{"data":{"title":"T","price":1.5}}}`},
		{"no body", http.Header{"Mr-Signature": {good}}, ""},
		{"the signature of body as the one of timestamped-body", http.Header{"X-Modelriver-Signature": {good}, "X-Modelriver-Timestamp": {now}}, body},
		{"the signature of body as the one of data", http.Header{"X-Modelriver-Signature": {good}, "X-Modelriver-Timestamp": {now}}, data},
		{"the signature of body, split at its first dot", http.Header{"X-Modelriver-Signature": {good}, "X-Modelriver-Timestamp": {body[:strings.Index(body, ".")]}}, body[strings.Index(body, ".")+1:]},
		{"the signature of timestamped-body as the one of body", http.Header{"Mr-Signature": {sign(testSecret, now+"."+body)}}, body},
		{"the signature of data as the one of body", http.Header{"Mr-Signature": {sign(testSecret, now+"."+body)}}, data},
		{"another timestamp", http.Header{"X-Modelriver-Signature": {sign(testSecret, now+"."+body)}, "X-Modelriver-Timestamp": {"1767225601"}}, body},
		{"no timestamp", http.Header{"X-Modelriver-Signature": {sign(testSecret, "."+body)}}, body},
		{"two timestamps", http.Header{"X-Modelriver-Signature": {sign(testSecret, now+"."+body)}, "X-Modelriver-Timestamp": {now, now}}, body},
		{"changed data", http.Header{"X-Modelriver-Signature": {sign(testSecret, now+"."+body)}, "X-Modelriver-Timestamp": {now}}, strings.Replace(data, "1.5", "9.5", 1)},
		{"a second data member", http.Header{"X-Modelriver-Signature": {sign(testSecret, now+"."+body)}, "X-Modelriver-Timestamp": {now}}, strings.TrimSuffix(data, "}") + `,"data":{"ai_response":{"data":{"title":"Evil"}}}}`},
	} {
		if status, answer := postRaw(t, s, row.header, row.body); status != 401 || answer != `{"error":"Invalid signature"}` {
			t.Errorf("%s: got %d %s, want 401", row.name, status, answer)
		}
	}
	if got := count(t, db, "aiContent") + count(t, db, "modelriverCallbacks"); got != 0 {
		t.Errorf("forged webhooks left %d rows", got)
	}

	// The control: the same bytes, signed. Replays change nothing.
	for range 5 {
		for _, ok := range []struct {
			header http.Header
			body   string
		}{
			{http.Header{"Mr-Signature": {good}}, body},
			{http.Header{"Mr-Signature": {strings.ToUpper(good)}}, body},
			{http.Header{"X-Modelriver-Signature": {sign(testSecret, now+"."+body)}, "X-Modelriver-Timestamp": {now}}, body},
			{http.Header{"X-Modelriver-Signature": {sign(testSecret, now+"."+body)}, "X-Modelriver-Timestamp": {now}}, data},
		} {
			if status, answer := postRaw(t, s, ok.header, ok.body); status != 200 {
				t.Errorf("signed: got %d %s, want 200", status, answer)
			}
		}
	}
	if got := count(t, db, "aiContent"); got != 1 {
		t.Errorf("records: got %d, want 1", got)
	}
}

func TestBlankSecrets(t *testing.T) {
	t.Parallel()
	const body = `{"type":"task.ai_generated","channel_id":"blank","ai_response":{"data":{}}}`
	t.Run("none", func(t *testing.T) {
		s := startServer(t, "", "MODELRIVER_WEBHOOK_SECRET=")
		if status, answer := postRaw(t, s, http.Header{"Mr-Signature": {sign("", body)}}, body); status != 503 || !strings.Contains(answer, "secret") {
			t.Errorf("got %d %s, want 503", status, answer)
		}
	})
	for _, secret := range []string{" ", "\t", "one,", ",one", "one,,two", "one, ,two"} {
		command := exec.Command(buildBinary(t), "serve", "--dev=false", "--dir", t.TempDir(), "--http", "127.0.0.1:0")
		command.Env = append(os.Environ(), "MODELRIVER_WEBHOOK_SECRET="+secret)
		if out, err := command.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("MODELRIVER_WEBHOOK_SECRET")) || !bytes.Contains(out, []byte("blank")) {
			t.Errorf("secret %q: got %v, want an error that names the variable\n%s", secret, err, out)
		}
	}
}

// A trap is an address that nobody may connect to.
type trap struct {
	port    string
	touched atomic.Int32
}

func newTrap(t testing.TB, address string) *trap {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	tr := &trap{}
	_, tr.port, _ = net.SplitHostPort(listener.Addr().String())
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			tr.touched.Add(1)
			conn.Close()
		}
	}()
	return tr
}

// The API key goes to hosts that were named, whatever a callback URL looks like.
func TestCallbackURLs(t *testing.T) {
	t.Parallel()
	m := newModelRiver(t, "", 1)
	allowed := m.newReceiver(func(_ *modelRiver, w http.ResponseWriter, _ *http.Request, _ func()) { io.WriteString(w, `{}`) })
	evil := newTrap(t, "0.0.0.0:0")
	elsewhere := m.newReceiver(redirects(307, "http://127.0.0.1:"+evil.port))
	host := strings.TrimPrefix(allowed.url, "http://")
	_, port, _ := net.SplitHostPort(host)
	s := startServer(t, "", "MODELRIVER_CALLBACK_HOSTS="+host+","+strings.TrimPrefix(elsewhere.url, "http://"))
	db := openDatabase(t, s.Dir)

	type row struct {
		url, state, lastError string
	}
	const refused = "MODELRIVER_CALLBACK_HOSTS"
	rows := []row{
		{"HTTP://127.0.0.1:" + port + "/Callback", "delivered", ""},
		{allowed.url + "/a/../b?x=1#y", "delivered", ""},
		{elsewhere.url + "/x", "failed", "answered 307"},
	}
	for _, address := range []string{
		"http://127.0.0.1:EVIL/x", "http://localhost:EVIL/x", "http://[::1]:EVIL/x", "http://0.0.0.0:EVIL/x", "http://127.0.0.2:EVIL/x",
		"http://127.1:EVIL/x", "http://2130706433:EVIL/x", "http://0x7f000001:EVIL/x", "http://0177.0.0.1:EVIL/x",
		"http://[::ffff:127.0.0.1]:EVIL/x", "http://[::ffff:7f00:1]:EVIL/x", "http://[::1%25lo]:EVIL/x",
		"http://127.0.0.1.:EVIL/x", "http://127.0.0.1:PORT.:EVIL/x", "http://localhost:PORT/x", "http://127.0.0.1:0PORT/x",
		"https://127.0.0.1:EVIL/x", "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "https://192.168.0.1/", "https://172.16.0.1/", "https://[fd00::1]/", "https://[fe80::1]/",
		"file:///etc/passwd", "gopher://127.0.0.1:EVIL/x", "ftp://127.0.0.1:EVIL/x", "unix:///var/run/docker.sock", "javascript:alert(1)", "data:text/plain,x",
		"https://api.modelriver.com@127.0.0.1:EVIL/x", "http://127.0.0.1:PORT@127.0.0.1:EVIL/x", "http://user:pass@127.0.0.1:PORT/x", "http://127.0.0.1:EVIL#@127.0.0.1:PORT/x",
		"http://127.0.0.1:EVIL?@127.0.0.1:PORT/x", `http://127.0.0.1:EVIL\@127.0.0.1:PORT/x`, "http://127.0.0.1:EVIL/@127.0.0.1:PORT/x", "//127.0.0.1:EVIL/x", "/v1/callback/x", "127.0.0.1:EVIL/x", " http://127.0.0.1:EVIL/x",
		"http://api.modelriver.com/x", "https://api.modelriver.com:8443/x", "https://api.modelriver.com./x", "https://api.modelriver.com.evil.example/x", "https://evil.example/api.modelriver.com",
		"https://xapi.modelriver.com/x", "https://\u0430pi.modelriver.com/x", "https://api\u3002modelriver.com/x", "https://api.modelriver.com\u0000.evil.example/x", "https://api.modelriver.com\r\nHost: evil/x", "https://api%2emodelriver.com/x",
		"https://", "http:127.0.0.1:EVIL/x", "http:///127.0.0.1:EVIL/x",
	} {
		rows = append(rows, row{strings.NewReplacer("EVIL", evil.port, "PORT", port).Replace(address), "failed", refused})
	}
	for i, row := range rows {
		channel := fmt.Sprintf("ssrf-%d", i)
		body := fmt.Sprintf(`{"type":"task.ai_generated","channel_id":%q,"callback_url":%s,"ai_response":{"data":{}}}`, channel, jsonText(row.url))
		if status := s.Send([]byte(body)); status != 200 {
			t.Errorf("%q: webhook: got %d, want 200", row.url, status)
			continue
		}
		check := func(channel, want, lastError string) {
			t.Helper()
			var got callbackRow
			await(t, "the callback to "+row.url+" has an outcome", func() bool {
				err := db.NewQuery("SELECT c.* FROM modelriverCallbacks c JOIN aiContent a ON a.id = c.id WHERE a.channelId = {:channel}").Bind(dbx.Params{"channel": channel}).One(&got)
				return err == nil && got.State != "pending"
			})
			if got.State != want || !strings.Contains(got.LastError, lastError) {
				t.Errorf("%q: got %s, %q, want %s, %q", row.url, got.State, got.LastError, want, lastError)
			}
		}
		check(channel, row.state, row.lastError)

		// The data scheme does not sign the envelope: anyone who saw one webhook can
		// send its data with a callback URL of their own.
		if row.lastError != refused || strings.ContainsAny(row.url, "\r\n\x00") {
			continue
		}
		channel = fmt.Sprintf("envelope-%d", i)
		data := `{"type":"task.ai_generated","ai_response":{"data":{}}}`
		envelope := fmt.Sprintf(`{"channel_id":%q,"callback_url":%s,"data":%s}`, channel, jsonText(row.url), data)
		header := http.Header{"X-Modelriver-Signature": {sign(testSecret, "1."+data)}, "X-Modelriver-Timestamp": {"1"}, "X-Modelriver-Callback-Url": {strings.TrimSpace(row.url)}}
		if status, answer := postRaw(t, s, header, envelope); status != 200 {
			t.Errorf("%q in the envelope: got %d %s", row.url, status, answer)
			continue
		}
		check(channel, row.state, row.lastError)
	}
	if got := evil.touched.Load(); got != 0 {
		t.Errorf("connections to hosts that were not named: got %d, want none", got)
	}
}

// Neither the key nor the secret is anywhere but in the environment and in the
// Authorization header of callbacks.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	const secret, key = "mr_whsec_5d1c0f6e2b", "mr_live_93ab41c7d2"
	m := newModelRiver(t, "", 1)
	echo := m.newReceiver(func(_ *modelRiver, w http.ResponseWriter, r *http.Request, _ func()) {
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		w.WriteHeader(400)
		fmt.Fprintf(w, "bad header %q", r.Header.Get("Authorization"))
	})
	s := startServer(t, "", "MODELRIVER_WEBHOOK_SECRET="+secret, "MODELRIVER_API_KEY="+key)
	token := s.Superuser()
	for i, to := range []string{echo.url, closedPort(t), "https://evil.example"} {
		body := fmt.Sprintf(`{"type":"task.ai_generated","channel_id":"leak-%d","callback_url":%q,"ai_response":{"data":{}}}`, i, to+"/x")
		if status, _ := postRaw(t, s, http.Header{"Mr-Signature": {sign(secret, body)}}, body); status != 200 {
			t.Fatalf("webhook: got %d", status)
		}
		postRaw(t, s, http.Header{"Mr-Signature": {sign("wrong", body)}}, body)
	}
	db := openDatabase(t, s.Dir)
	await(t, "the callbacks fail", func() bool { return count(t, db, "modelriverCallbacks WHERE state = 'failed'") >= 2 })

	seen := map[string]string{}
	for _, path := range []string{
		"/", "/_/", "/_/extensions.js", "/api/health", "/api/settings", "/api/collections", "/api/crons", "/api/logs?perPage=500",
		"/api/collections/aiContent/records", "/api/collections/modelriverCallbacks/records", "/webhooks/modelriver",
	} {
		request, _ := http.NewRequest(http.MethodGet, s.URL+path, nil)
		request.Header.Set("Authorization", token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(response.Body)
		response.Body.Close()
		seen[path] = fmt.Sprint(response.Header, string(b))
	}
	if !strings.Contains(seen["/api/collections/modelriverCallbacks/records"], "[API key]") {
		t.Errorf("the echoed key was not replaced: %s", seen["/api/collections/modelriverCallbacks/records"])
	}
	s.API(token, http.MethodPost, "/api/backups", map[string]string{"name": "leak.zip"}, nil)
	time.Sleep(3500 * time.Millisecond) // logs are written every 3 s
	s.Stop()
	seen["what the process prints"] = s.output.String()
	for _, args := range [][]string{{"--help"}, {"modelriver", "--help"}, {"modelriver", "send", "--url", s.URL}, {"serve", "--http", "256.0.0.1:1"}} {
		command := exec.Command(s.binary, append(args, "--dir", s.Dir)...)
		command.Env = s.env
		out, _ := command.CombinedOutput()
		seen[fmt.Sprint(args)] = string(out)
	}
	unpacked := t.TempDir()
	if err := archive.Extract(filepath.Join(s.Dir, "backups", "leak.zip"), unpacked); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{s.Dir, unpacked} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			seen[path] = string(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for where, text := range seen {
		if strings.Contains(text, key) || strings.Contains(text, secret) {
			t.Errorf("a secret is in %s", where)
		}
	}
}
