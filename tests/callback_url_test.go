package tests

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pocketbase/dbx"
)

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

// refusedURLs are those of hosts that were not named. EVIL is the port of the trap, PORT
// the one that was named.
var refusedURLs = []string{
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
}

// The API key goes to hosts that were named, whatever a callback URL looks like.
func TestCallbackURLs(t *testing.T) {
	t.Parallel()
	m := newModelRiver(t, "", 1)
	allowed := m.newReceiver(answersEmpty)
	evil := newTrap(t, "0.0.0.0:0")
	elsewhere := m.newReceiver(redirects(307, "http://127.0.0.1:"+evil.port))
	host := strings.TrimPrefix(allowed.url, "http://")
	_, port, _ := net.SplitHostPort(host)
	s := startServer(t, "", "MODELRIVER_CALLBACK_HOSTS="+host+","+strings.TrimPrefix(elsewhere.url, "http://"))
	db := openDatabase(t, s.Dir)
	for i, row := range []struct{ url, state, lastError string }{
		{"HTTP://127.0.0.1:" + port + "/Callback", "delivered", ""},
		{allowed.url + "/a/../b?x=1#y", "delivered", ""},
		{elsewhere.url + "/x", "failed", "answered 307"},
	} {
		channel := fmt.Sprintf("named-%d", i)
		sendCallbackURL(s, channel, row.url)
		checkCallbackOf(t, db, channel, row.url, row.state, row.lastError)
	}
	const refused = "MODELRIVER_CALLBACK_HOSTS"
	for i, address := range refusedURLs {
		address = strings.NewReplacer("EVIL", evil.port, "PORT", port).Replace(address)
		channel := fmt.Sprintf("ssrf-%d", i)
		sendCallbackURL(s, channel, address)
		checkCallbackOf(t, db, channel, address, "failed", refused)
		if !strings.ContainsAny(address, "\r\n\x00") { // which no header holds
			channel = fmt.Sprintf("envelope-%d", i)
			sendForgedEnvelope(s, channel, address)
			checkCallbackOf(t, db, channel, address, "failed", refused)
		}
	}
	if got := evil.touched.Load(); got != 0 {
		t.Errorf("connections to hosts that were not named: got %d, want none", got)
	}
}

func sendCallbackURL(s *server, channel, callbackURL string) {
	s.t.Helper()
	s.mustSend(fmt.Appendf(nil, `{"type":"task.ai_generated","channel_id":%q,"callback_url":%s,"ai_response":{"data":{}}}`, channel, jsonText(callbackURL)))
}

// sendForgedEnvelope sends what anyone can who saw one webhook of the data scheme, which
// does not sign the envelope: its data with a callback URL of their own.
func sendForgedEnvelope(s *server, channel, callbackURL string) {
	s.t.Helper()
	data := `{"type":"task.ai_generated","ai_response":{"data":{}}}`
	envelope := fmt.Sprintf(`{"channel_id":%q,"callback_url":%s,"data":%s}`, channel, jsonText(callbackURL), data)
	header := http.Header{"X-Modelriver-Signature": {sign(testSecret, "1."+data)}, "X-Modelriver-Timestamp": {"1"}, "X-Modelriver-Callback-Url": {strings.TrimSpace(callbackURL)}}
	if status, answer := postWebhook(s.t, s, header, envelope); status != 200 {
		s.t.Fatalf("%q in the envelope: got %d %s", callbackURL, status, answer)
	}
}

// checkCallbackOf waits until the callback of a channel has its outcome.
func checkCallbackOf(t *testing.T, db *dbx.DB, channel, callbackURL, state, lastError string) {
	t.Helper()
	var got callbackRow
	await(t, "the callback to "+callbackURL+" has an outcome", func() bool {
		err := db.NewQuery("SELECT c.* FROM modelriverCallbacks c JOIN aiContent a ON a.id = c.id WHERE a.channelId = {:channel}").Bind(dbx.Params{"channel": channel}).One(&got)
		return err == nil && got.State != "pending"
	})
	if got.State != state || !strings.Contains(got.LastError, lastError) {
		t.Errorf("%q: got %s, %q, want %s, %q", callbackURL, got.State, got.LastError, state, lastError)
	}
}
