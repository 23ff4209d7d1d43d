package tests

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

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
		if status, answer := postWebhook(t, s, row.header, row.body); status != 401 || answer != `{"error":"Invalid signature"}` {
			t.Errorf("%s: got %d %s, want 401", row.name, status, answer)
		}
	}
	if got := countRows(t, db, "aiContent") + countRows(t, db, "modelriverCallbacks"); got != 0 {
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
			if status, answer := postWebhook(t, s, ok.header, ok.body); status != 200 {
				t.Errorf("signed: got %d %s, want 200", status, answer)
			}
		}
	}
	if got := countRows(t, db, "aiContent"); got != 1 {
		t.Errorf("records: got %d, want 1", got)
	}
}

func TestBlankSecrets(t *testing.T) {
	t.Parallel()
	const body = `{"type":"task.ai_generated","channel_id":"blank","ai_response":{"data":{}}}`
	t.Run("none", func(t *testing.T) {
		s := startServer(t, "", "MODELRIVER_WEBHOOK_SECRET=")
		if status, answer := postWebhook(t, s, http.Header{"Mr-Signature": {sign("", body)}}, body); status != 503 || !strings.Contains(answer, "secret") {
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
