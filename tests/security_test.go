package tests

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

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

// A stream is a realtime connection and what it was sent.
type stream struct {
	clientID string
	mu       sync.Mutex
	events   []string
}

func (s *stream) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.events, "\n")
}

func subscribe(t testing.TB, s *server, token string, topics ...string) *stream {
	t.Helper()
	response, err := http.Get(s.URL + "/api/realtime")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	st := &stream{}
	connected := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(nil, 1<<24)
		for lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "id:"); ok {
				select {
				case connected <- id:
				default:
				}
			}
			st.mu.Lock()
			st.events = append(st.events, lines.Text())
			st.mu.Unlock()
		}
	}()
	select {
	case st.clientID = <-connected:
	case <-time.After(20 * time.Second):
		t.Fatal("realtime does not connect")
	}
	s.API(token, http.MethodPost, "/api/realtime", map[string]any{"clientId": st.clientID, "subscriptions": topics}, nil)
	return st
}

// What was made for a user is seen by that user alone, and callbacks by superusers.
func TestOthersSeeNothing(t *testing.T) {
	t.Parallel()
	m := newModelRiver(t, "", 1)
	receiver := m.newReceiver(func(_ *modelRiver, w http.ResponseWriter, _ *http.Request, _ func()) { io.WriteString(w, `{}`) })
	s := startServer(t, "")
	root := s.Superuser()
	s.API(root, http.MethodPatch, "/api/settings", map[string]any{"batch": map[string]any{"enabled": true, "maxRequests": 10, "timeout": 10}}, nil)
	tokens, ids := map[string]string{"guest": ""}, map[string]string{}
	for _, name := range []string{"owner", "other"} {
		var user struct{ ID string }
		s.API(root, http.MethodPost, "/api/collections/users/records", map[string]any{
			"email": name + "@example.com", "password": testPassword, "passwordConfirm": testPassword, "verified": true,
		}, &user)
		ids[name] = user.ID
		tokens[name] = s.SignIn("users", name+"@example.com", testPassword)
	}
	topics := []string{"aiContent/*", "aiContent", "modelriverCallbacks/*", `aiContent/*?options={"query":{"filter":"userId='` + ids["owner"] + `'","expand":"modelriverCallbacks_via_record"}}`}
	streams := map[string]*stream{}
	for name, token := range tokens {
		streams[name] = subscribe(t, s, token, topics...)
	}

	const marker = "PRIVATE-c0ffee"
	private := fmt.Sprintf(`{"type":"task.ai_generated","channel_id":"private","callback_url":%q,"ai_response":{"data":{"title":%q}},"customer_data":{"user_id":%q}}`, receiver.url+"/"+marker, marker, ids["owner"])
	public := fmt.Sprintf(`{"type":"task.ai_generated","channel_id":"public","callback_url":%q,"ai_response":{"data":{"title":"PUBLIC"}}}`, receiver.url+"/"+marker)
	for _, payload := range []string{private, public} {
		if status := s.Send([]byte(payload)); status != 200 {
			t.Fatalf("webhook: got %d", status)
		}
	}
	var list struct {
		Items []struct{ ID, ChannelID string }
	}
	s.API(root, http.MethodGet, "/api/collections/aiContent/records", nil, &list)
	recordID := map[string]string{}
	for _, item := range list.Items {
		recordID[item.ChannelID] = item.ID
	}
	db := openDatabase(t, s.Dir)
	await(t, "both are delivered", func() bool { return count(t, db, "modelriverCallbacks WHERE state = 'delivered'") == 2 })

	get := func(token, path string) (int, string) {
		request, _ := http.NewRequest(http.MethodGet, s.URL+path, nil)
		request.Header.Set("Authorization", token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		b, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(b)
	}
	const content, callbacks = "/api/collections/aiContent/records", "/api/collections/modelriverCallbacks/records"
	q := url.QueryEscape
	for _, who := range []string{"guest", "other"} {
		token := tokens[who]
		for _, path := range []string{
			content, content + "?perPage=500&sort=-created,-id", content + "?sort=userId", content + "?expand=modelriverCallbacks_via_record,userId",
			content + "/" + recordID["private"], content + "/" + recordID["private"] + "?expand=modelriverCallbacks_via_record",
			content + "?filter=" + q(`userId="`+ids["owner"]+`"`), content + "?filter=" + q(`title~"PRIVATE"`), content + "?filter=" + q(`channelId="private" || 1=1`),
			content + "?filter=" + q(`id="`+recordID["private"]+`"`), content + "?fields=*,expand&skipTotal=1",
			content + "/" + recordID["public"] + "?expand=modelriverCallbacks_via_record", content + "?filter=" + q(`channelId="public"`) + "&expand=modelriverCallbacks_via_record",
			callbacks, callbacks + "/" + recordID["public"], callbacks + "/" + recordID["private"], callbacks + "?filter=" + q(`state="delivered"`), callbacks + "?expand=record",
		} {
			if _, answer := get(token, path); strings.Contains(answer, marker) {
				t.Errorf("%s sees another's content in %s: %s", who, path, answer)
			}
		}
		// Not even whether it exists: a filter or sort must not tell.
		for filter, atMost := range map[string]int{
			`userId="` + ids["owner"] + `"`:                        0,
			`modelriverCallbacks_via_record.url ~ "c0ffee"`:        0,
			`modelriverCallbacks_via_record.state ?= "delivered"`:  0,
			`@collection.modelriverCallbacks.state ?= "delivered"`: 0,
			`@collection.aiContent.title ?= "` + marker + `"`:      0,
			`channelId = "private"`:                                0,
			`id != ""`:                                             1,
		} {
			status, answer := get(token, content+"?filter="+q(filter))
			var got struct{ TotalItems int }
			json.Unmarshal([]byte(answer), &got)
			if status == 200 && got.TotalItems > atMost {
				t.Errorf("%s: filter %s: got %d items, want at most %d: %s", who, filter, got.TotalItems, atMost, answer)
			}
		}
		if status, answer := get(token, content+"/"+recordID["private"]); status != 404 {
			t.Errorf("%s: view: got %d %s, want 404", who, status, answer)
		}
		if status, answer := get(token, callbacks); status != 403 {
			t.Errorf("%s: callbacks: got %d %s, want 403", who, status, answer)
		}
		// Nothing may be written, one by one or in a batch.
		for _, change := range []struct{ method, path string }{
			{http.MethodPost, content}, {http.MethodPatch, content + "/" + recordID["public"]}, {http.MethodDelete, content + "/" + recordID["private"]},
			{http.MethodPost, callbacks}, {http.MethodPatch, callbacks + "/" + recordID["public"]}, {http.MethodPut, content},
		} {
			for _, batch := range []bool{false, true} {
				method, path, body := change.method, change.path, `{"id":"aaaaaaaaaaaaaaa","title":"Evil","state":"pending"}`
				if batch {
					body = fmt.Sprintf(`{"requests":[{"method":%q,"url":%q,"body":%s}]}`, method, path, body)
					method, path = http.MethodPost, "/api/batch"
				}
				request, _ := http.NewRequest(method, s.URL+path, strings.NewReader(body))
				request.Header.Set("Authorization", token)
				request.Header.Set("Content-Type", "application/json")
				response, err := http.DefaultClient.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				answer, _ := io.ReadAll(response.Body)
				response.Body.Close()
				if response.StatusCode < 400 || bytes.Contains(answer, []byte(marker)) {
					t.Errorf("%s: %s %s (batch %t): got %d %s", who, change.method, change.path, batch, response.StatusCode, answer)
				}
			}
		}
		await(t, who+" gets the public record live", func() bool { return strings.Contains(streams[who].all(), "PUBLIC") })
		if got := streams[who].all(); strings.Contains(got, marker) {
			t.Errorf("%s gets another's content live: %s", who, got)
		}
	}
	// The control: the owner sees it everywhere.
	if _, answer := get(tokens["owner"], content+"/"+recordID["private"]); !strings.Contains(answer, marker) {
		t.Errorf("the owner does not see their content: %s", answer)
	}
	await(t, "the owner gets it live", func() bool { return strings.Contains(streams["owner"].all(), marker) })
	if strings.Contains(streams["owner"].all(), "modelriverCallbacks\"") {
		t.Error("the owner gets callbacks live")
	}
	if got := count(t, db, "aiContent WHERE title = 'Evil'"); got != 0 {
		t.Errorf("%d records were written from outside", got)
	}
}

// Unsigned webhooks as fast as they come keep no signed one out and leave nothing.
func TestJunkFlood(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	logs, err := dbx.Open("sqlite", filepath.Join(s.Dir, "auxiliary.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	m := newModelRiver(t, s.URL, rand.Uint64())
	good := m.newReceiver(accepts)
	if status := m.post(m.newWebhook(kindCallback, good.url, 100)); status != 200 {
		t.Fatalf("webhook: got %d", status)
	}
	settle(t, s.Dir, time.Minute)
	before := residentMemory(t, s)

	// Raw connections that pipeline, so that the flood costs this side little.
	junk := strings.Repeat("POST /webhooks/modelriver HTTP/1.1\r\nHost: x\r\nmr-signature: "+strings.Repeat("0", 64)+"\r\nContent-Length: 56\r\n\r\n"+
		`{"type":"task.ai_generated","ai_response":{"data":{}}}  `, 50)
	stop := make(chan struct{})
	var answered atomic.Int64
	var flood sync.WaitGroup
	for range 32 {
		flood.Go(func() {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			answers := bufio.NewReader(conn)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := io.WriteString(conn, junk); err != nil {
					t.Error(err)
					return
				}
				for range 50 {
					response, err := http.ReadResponse(answers, nil)
					if err != nil {
						t.Error(err)
						return
					}
					io.Copy(io.Discard, response.Body)
					if response.StatusCode != 401 {
						t.Errorf("junk: got %s, want 401", response.Status)
					}
					answered.Add(1)
				}
			}
		})
	}
	started := time.Now()
	signed := 0
	for time.Since(started) < 3*time.Second || answered.Load() < 10_000 {
		if status := m.post(m.newWebhook(kindCallback, good.url, 100)); status != 200 {
			t.Errorf("a signed webhook during the flood: got %d, want 200", status)
		}
		signed++
	}
	took := time.Since(started)
	close(stop)
	flood.Wait()
	t.Logf("%.0f junk requests a second for %s; %d signed webhooks got through meanwhile; memory before %d MB, after %d MB",
		float64(answered.Load())/took.Seconds(), took.Round(time.Millisecond), signed, before>>20, residentMemory(t, s)>>20)
	await(t, "memory returns", func() bool { return residentMemory(t, s) < before+100<<20 })
	settle(t, s.Dir, time.Minute)
	s.Stop() // writes the last logs
	if got := count(t, logs, "_logs"); got > 20+int(took/time.Minute) {
		t.Errorf("log rows after %d junk requests: got %d", answered.Load(), got)
	}
	m.check(s.Dir, true)
}

// Connections that send a header or a body slowly, or never, take little and keep no
// signed webhook out.
func TestSlowConnections(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	m := newModelRiver(t, s.URL, rand.Uint64())
	good := m.newReceiver(accepts)
	before := residentMemory(t, s)
	var closed atomic.Int32
	const each = 300
	for i := range 2 * each {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		head := "POST /webhooks/modelriver HTTP/1.1\r\nHost: x\r\nX-Slow: "
		if i%2 == 0 { // the whole header, and the first byte of a body that is announced as large
			head += "1\r\nContent-Length: 5000000\r\n\r\n{"
		}
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			go func() {
				io.Copy(io.Discard, conn) // until the server gives up
				closed.Add(1)
			}()
		}
	}
	for range 50 {
		if status := m.post(m.newWebhook(kindCallback, good.url, 100)); status != 200 {
			t.Errorf("a signed webhook beside slow connections: got %d, want 200", status)
		}
	}
	if got := residentMemory(t, s); got > before+100<<20 {
		t.Errorf("memory: got %d MB, before %d MB", got>>20, before>>20)
	}
	await(t, "slow bodies are given up", func() bool { return closed.Load() == each })
	settle(t, s.Dir, time.Minute)
	s.Stop()
	m.check(s.Dir, true)
}

// Whatever text a model writes is stored, called back and listed as valid JSON.
func TestHostileText(t *testing.T) {
	t.Parallel()
	m := newModelRiver(t, "", 1)
	receiver := m.newReceiver(func(_ *modelRiver, w http.ResponseWriter, r *http.Request, _ func()) { io.WriteString(w, `{}`) })
	s := startServer(t, "")
	root := s.Superuser()
	for i, row := range []struct {
		name, title string // as JSON
		want        string // the title's beginning; "" is any
	}{
		{"HTML", `"<script>alert(1)</script><img src=x onerror=alert(1)>"`, "<script>alert(1)</script><img src=x onerror=alert(1)>"},
		{"1 MB", `"` + strings.Repeat("x", 1<<20) + `"`, strings.Repeat("x", 500)},
		{"an escaped NUL", `"a\u0000b"`, "a\uFFFDb"},
		{"invalid UTF-8", "\"a\xff\xfeb\"", "a\uFFFD"},
		{"half a character", "\"a\xe2\x82\"", "a\uFFFD"},
		{"a lone surrogate", `"a\ud800b"`, "a\uFFFDb"},
		{"surrogates in the wrong order", `"a\udc00\ud800b"`, "a\uFFFD\uFFFDb"},
		{"bidirectional controls", `"a\u202Eb\u2066c"`, "a\u202Eb\u2066c"},
		{"line separators and controls", `"a\u2028b\u2029c\u0001\u001b[31m"`, "a\u2028b\u2029c\u0001\u001b[31m"},
		{"emoji and combining marks", `"👩‍👩‍👧 é` + strings.Repeat("\u0301", 100) + `"`, "👩‍👩‍👧 é"},
		{"a number", `12345678901234567890`, "12345678901234567890"},
		{"an object", `{"a":1}`, "Untitled"},
		{"blank", `" \t "`, "Untitled"},
		{"template text", `"{{.}} ${1} {:id} %s '; DROP TABLE aiContent;--"`, "{{.}} ${1} {:id} %s '; DROP TABLE aiContent;--"},
	} {
		channel := fmt.Sprintf("hostile-%d", i)
		payload := fmt.Sprintf(`{"type":"task.ai_generated","event":%[2]s,"channel_id":%[1]q,"callback_url":%[3]q,"ai_response":{"data":{"title":%[2]s,"description":%[2]s,"k":%[2]s}},"customer_data":{"category":"hostile"}}`,
			channel, row.title, receiver.url+"/x")
		if status := s.Send([]byte(payload)); status != 200 {
			t.Errorf("%s: got %d, want 200", row.name, status)
			continue
		}
		request, _ := http.NewRequest(http.MethodGet, s.URL+"/api/collections/aiContent/records?filter="+url.QueryEscape(`channelId="`+channel+`"`), nil)
		request.Header.Set("Authorization", root)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(response.Body)
		response.Body.Close()
		var list struct {
			Items []struct {
				Title string
				Data  map[string]any
			}
		}
		if err := json.Unmarshal(raw, &list); err != nil || !utf8.Valid(raw) || len(list.Items) != 1 {
			t.Errorf("%s: %v, %d items in %.300q", row.name, err, len(list.Items), raw)
			continue
		}
		if got := list.Items[0].Title; !strings.HasPrefix(got, row.want) || !utf8.ValidString(got) || strings.Contains(got, "\x00") {
			t.Errorf("%s: title: got %.100q, want %.100q", row.name, got, row.want)
		}
		if _, ok := list.Items[0].Data["k"]; !ok {
			t.Errorf("%s: data: got %.100v", row.name, list.Items[0].Data)
		}
	}
	settle(t, s.Dir, time.Minute)
	db := openDatabase(t, s.Dir)
	if got, want := count(t, db, "modelriverCallbacks WHERE state = 'delivered'"), 14; got != want {
		t.Errorf("delivered: got %d, want %d", got, want)
	}
	var invalid int
	if err := db.NewQuery("SELECT COUNT(*) FROM aiContent WHERE NOT json_valid(data) OR NOT json_valid(metadata)").Row(&invalid); err != nil || invalid != 0 {
		t.Errorf("records with invalid JSON: got %d, %v", invalid, err)
	}
}
