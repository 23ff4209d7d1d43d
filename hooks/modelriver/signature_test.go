package modelriver_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// The signatures below were made by other implementations, none by Sign:
//
//	printf '%s' "$SIGNED" | openssl dgst -sha256 -hmac "$SECRET"
//	node -e 'crypto.createHmac("sha256", SECRET).update(SIGNED).digest("hex")'
//
// The long ones sign the two deliveries that the protocol's notes describe.
const (
	longSecret = "mr_whsec_test_0123456789"
	channel    = "550e8400-e29b-41d4-a716-446655440000"
	longBody   = `{"type":"task.ai_generated","event":"new_content","channel_id":"` + channel + `","ai_response":{"data":{"title":"T","score":1.0}},"callback_url":"https://api.modelriver.com/v1/callback/` + channel + `","callback_required":true,"customer_data":{"user_id":"u1"}}`
	longData   = `{"type":"task.ai_generated","event":"new_content","ai_response":{"data":{"title":"<T> é","score":1.0,"10":"x","9":"y"}},"callback_url":"https://api.modelriver.com/v1/callback/` + channel + `"}`
	nestedBody = `{"channel_id":"` + channel + `","timestamp":"1767616496","data":` + longData + `}`

	small     = `{"data":{"a":1}}`
	smallBody = "216731b113389b23a1902e388883ff9a40ab4ad62c72dcbafbfadc63a5e8e6a0" // of small
	smallData = "db50b2648251560091461ca096ee3432161fe49d70c7fd6f2354b2fa33521cc8" // of 1767616496.{"a":1}
	smallTime = "5ac39dbd98800f19fdd3978b2c524d306dac11e2dec2982ab8ae0a3c55aabccb" // of 1767616496.small
	stamp     = "1767616496"
)

// docs and servers are the two families of headers.
func docs(signature string) http.Header {
	header := http.Header{}
	header.Set("mr-signature", signature)
	header.Set("mr-timestamp", stamp)
	return header
}

func servers(signature, timestamp string) http.Header {
	header := http.Header{}
	header.Set("X-ModelRiver-Signature", signature)
	header.Set("X-ModelRiver-Timestamp", timestamp)
	return header
}

func with(header http.Header, name string, values ...string) http.Header {
	for _, value := range values {
		header.Add(name, value)
	}
	return header
}

func TestVerify(t *testing.T) {
	t.Parallel()
	var (
		missing = modelriver.ErrMissingSignature
		invalid = modelriver.ErrInvalidSignature
	)
	rows := []struct {
		name    string
		secrets string // separated by commas; "secret" if empty
		header  http.Header
		payload string
		want    error
	}{
		// What ModelRiver signs.
		{"documentation: raw body", longSecret, docs("7525ce24d2a3c64adf57bfc58bc11e4cb3c8e52cc489366b3940dee9d9d58608"), longBody, nil},
		{"servers: timestamp and data as sent", longSecret, servers("1339ec1f6a7a1456f66f3775293fdef57761a5ee4338eff853f43cf92a4a8507", stamp), nestedBody, nil},
		{"servers: timestamp and raw body", longSecret, servers("874b7cbed7c50e0031d760c0666df4ee22da7921bc745a957fc42f7ea805489d", stamp), longBody, nil},
		{"servers: inputs of their own unit test", "test-secret-key-12345", servers("d6e46cda593390173e0cc3ccebbd08b9f85058caea58efa981f5d8031b5d821f", "1704825600"), `{"data":{"status":"success","name":"Test User"}}`, nil},
		{"documentation, encoded again by JavaScript", longSecret, docs("c8dce5451a9f273f912ebbf041e096a8e94091e9bf1937cc2a79ea063faa9b87"), longBody, invalid},
		{"documentation, encoded again by Python", longSecret, docs("3aa9ddf20259605fa3c043395cd15ef96b0c77e27793f92022ab78285212611e"), longBody, invalid},
		{"servers, encoded again by JavaScript", longSecret, servers("e97b4071053025c4cab2a2135f211d75fba870c89a7e8e06e9ec4e61083b8cf1", stamp), nestedBody, invalid},

		// Secrets.
		{"wrong secret", "other", docs(smallBody), small, invalid},
		{"second secret of two", "other,secret", docs(smallBody), small, nil},
		{"first secret of two", "secret,other", servers(smallData, stamp), small, nil},
		{"third secret of three", "a,b,secret", servers(smallTime, stamp), small, nil},
		{"secret with other letters", "gehe\u00efm \u6cb3", docs("72e569e839815a42abdd2fe6410a9b4dc175a938e972e8969088f3cedff730e5"), small, nil},
		{"secret with a space added", "secret ", docs(smallBody), small, invalid},
		{"secret in upper case", "SECRET", docs(smallBody), small, invalid},

		// The form of a signature.
		{"upper-case hex", "", docs(strings.ToUpper(smallBody)), small, nil},
		{"no header", "", http.Header{}, small, missing},
		{"nil header", "", nil, small, missing},
		{"empty signature", "", docs(""), small, invalid},
		{"no hex", "", docs(strings.Repeat("zz", 32)), small, invalid},
		{"odd number of digits", "", docs(smallBody[:63]), small, invalid},
		{"one byte short", "", docs(smallBody[:62]), small, invalid},
		{"first byte only", "", docs(smallBody[:2]), small, invalid},
		{"one byte long", "", docs(smallBody + "00"), small, invalid},
		{"twice over", "", docs(smallBody + smallBody), small, invalid},
		{"a prefix", "", docs("sha256=" + smallBody), small, invalid},
		{"two in one header", "", docs(smallBody + "," + smallBody), small, invalid},
		{"base64", "", docs("IWcxsRM4myOhkC44iIP/mkCrStYscty6+/rcY6Xo5qA="), small, invalid},
		{"all zeros", "", docs(strings.Repeat("0", 64)), small, invalid},
		{"megabyte", "", docs(strings.Repeat("0", 1<<20)), small, invalid},
		{"header twice, the same", "", with(docs(smallBody), "mr-signature", smallBody), small, missing},
		{"header twice, good first", "", with(docs(smallBody), "mr-signature", "00"), small, missing},
		{"header twice, good last", "", with(docs("00"), "mr-signature", smallBody), small, missing},
		{"signature of the servers twice", "", with(servers(smallData, stamp), "X-ModelRiver-Signature", smallData), small, missing},
		{"timestamp of the servers twice", "", with(servers(smallData, stamp), "X-ModelRiver-Timestamp", stamp), small, missing},
		{"timestamp of the servers missing", "", with(http.Header{}, "X-ModelRiver-Signature", smallData), small, missing},
		{"timestamp of the documentation missing", "", with(http.Header{}, "mr-signature", smallBody), small, nil},

		// The payload.
		{"empty payload", "", docs(smallBody), "", invalid},
		{"empty payload, signed", "", docs("f9e66e179b6747ae54108f82f8ade8b3c25d76fd30afde6c395822c530196169"), "", nil},
		{"no object, signed", "", docs("53364a07fcc563e712f42cfc9de1e28e1e2d39f236cee430f112203e557aea3f"), "[]", nil},
		{"invalid UTF-8, signed", "", docs("7b52261821e753a951de07f3fcac40b1f705acc9bd9a8aee83b6d70f5bf19665"), "{\"a\":\"\xff\"}", nil},
		{"one byte changed", "", docs(smallBody), `{"data":{"a":2}}`, invalid},
		{"truncated", "", docs(smallBody), small[:len(small)-1], invalid},
		{"line feed added", "", docs(smallBody), small + "\n", invalid},
		{"line feed signed", "", docs("330ee2d983afddae3eea0e88b9ebacc8944d384d1fe06f465aad1cb2f1a2db76"), small + "\n", nil},
		{"white space added", "", docs(smallBody), `{"data": {"a":1}}`, invalid},
		{"members in another order", longSecret, docs("7525ce24d2a3c64adf57bfc58bc11e4cb3c8e52cc489366b3940dee9d9d58608"),
			`{"event":"new_content","type":"task.ai_generated"` + longBody[len(`{"type":"task.ai_generated","event":"new_content"`):], invalid},

		// The data member.
		{"data changed", "", servers(smallData, stamp), `{"data":{"a":2}}`, invalid},
		{"what is around data does not count", "", servers(smallData, stamp), `{"channel_id":"other","data":{"a":1},"callback_url":"https://evil.example"}`, nil},
		{"white space around data", "", servers(smallData, stamp), "{\"data\" :\r\n\t {\"a\":1} }", nil},
		{"data pretty-printed after it was signed", "", servers(smallData, stamp), "{\n  \"data\": {\n    \"a\": 1\n  }\n}\n", nil},
		{"data pretty-printed, changed", "", servers(smallData, stamp), "{\n  \"data\": {\n    \"a\": 2\n  }\n}\n", invalid},
		{"data pretty-printed, white space in text kept", "", servers("d83bdf49f9d79313ea59a36fe127bff55cc0f6e86295be43cc33ab1d5ddfa056", stamp), `{"data": { "a": [ 1, { "b": "x  y" } ] } }`, nil},
		{"data pretty-printed, white space in text lost", "", servers("d83bdf49f9d79313ea59a36fe127bff55cc0f6e86295be43cc33ab1d5ddfa056", stamp), `{"data": { "a": [ 1, { "b": "x y" } ] } }`, invalid},
		{"data pretty-printed when it was signed", "", servers("35e9a9a6f3446b6151352b93f87498f0d3d8397040e45a74251c41e0555f4834", stamp), `{"data":{ "a" : 1 }}`, nil},
		{"data compacted after it was signed", "", servers("35e9a9a6f3446b6151352b93f87498f0d3d8397040e45a74251c41e0555f4834", stamp), small, invalid},
		{"data is a string with a dot", "", servers("3563ed255964c41601700b3192b8ae65c03ced151f62b79a1d645748ecf43e62", stamp), `{"data":"a.b"}`, nil},
		{"data is null", "", servers("5f8b6afe3fcd3e2a8232c7997f32a76fa96bf72640d722ebfe7d8261c7d88743", stamp), `{"data":null}`, nil},
		{"data with an escaped name", "", servers(smallData, stamp), `{"d\u0061ta":{"a":1}}`, nil},
		{"data in upper case", "", servers(smallData, stamp), `{"DATA":{"a":1}}`, invalid},
		{"data deeper down", "", servers(smallData, stamp), `{"x":{"data":{"a":1}}}`, invalid},
		{"data twice, the last signed", "", servers(smallData, stamp), `{"data":{"a":2},"data":{"a":1}}`, nil},
		{"data twice, the first signed", "", servers(smallData, stamp), `{"data":{"a":1},"data":{"a":2}}`, invalid},
		{"data twice, the last escaped", "", servers(smallData, stamp), `{"data":{"a":1},"d\u0061ta":{"a":2}}`, invalid},
		{"data in a body that goes on", "", servers(smallData, stamp), small + small, invalid},
		{"data in a body that is cut off", "", servers(smallData, stamp), small[:len(small)-1], invalid},
		{"no data, timestamp and raw body", "", servers(smallData, stamp), `{"a":1}`, nil},
		{"no JSON, timestamp and raw body", "", servers("bb7cf12e721011418244733aef8d86d2db3d3401599b2572da7b1e1b0676dcf7", stamp), "hello", nil},

		// One scheme's signature in another's header.
		{"body signature for the servers", "", servers(smallBody, stamp), small, invalid},
		{"data signature for the documentation", "", docs(smallData), small, invalid},
		{"timestamped body for the documentation", "", docs(smallTime), small, invalid},
		{"data signature without data", "", servers(smallData, stamp), `{"data":{"a":1},"a":1}x`, invalid},
		{"both families, the documentation's good", "", with(docs(smallBody), "X-ModelRiver-Signature", "00"), small, nil},
		{"both families, the servers' good", "", with(servers(smallData, stamp), "mr-signature", "00"), small, nil},
		{"both families, swapped", "", with(servers(smallBody, stamp), "mr-signature", smallData), small, invalid},
		{"one doubled, the other good", "", with(servers(smallData, stamp), "mr-signature", smallBody, smallBody), small, nil},
		{"one doubled, the other bad", "", with(servers(smallBody, stamp), "mr-signature", smallBody, smallBody), small, invalid},

		// The timestamp.
		{"timestamp changed", "", servers(smallData, "1767616497"), small, invalid},
		{"timestamp empty", "", servers(smallData, ""), small, invalid},
		{"timestamp empty when signed", "", servers("768997821e545283610efb4e6a2bf894b22514dc623abf0683b475d6d7df9635", ""), small, nil},
		{"timestamp with a leading zero", "", servers(smallData, "01767616496"), small, invalid},
		{"timestamp that is no number, changed", "", servers(smallData, "yesterday"), small, invalid},
		{"timestamp that is no number, signed", "", servers("0f03abf670f276b1223c46a5b9349805fea4597fe2e48c9f45d757a017994bff", "yesterday"), small, nil},
		{"timestamp of the documentation is not signed", "", with(http.Header{"Mr-Timestamp": {"1"}}, "mr-signature", smallBody), small, nil},
		{"boundary of timestamp and body moved", "", servers(smallTime, stamp+`.{"data":{"a":1`), `}}`, invalid},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			secrets := strings.Split(row.secrets, ",")
			if row.secrets == "" {
				secrets = []string{"secret"}
			}
			verifier, err := modelriver.NewVerifier(secrets...)
			if err != nil {
				t.Fatal(err)
			}
			if err := verifier.Verify(row.header, []byte(row.payload)); !errors.Is(err, row.want) {
				t.Errorf("got %v, want %v", err, row.want)
			}
		})
	}
}

func TestNewVerifierErrors(t *testing.T) {
	t.Parallel()
	for name, secrets := range map[string][]string{
		"none": nil, "empty": {""}, "blank": {" \t\n"}, "blank second": {"secret", ""}, "blank first": {" ", "secret"},
	} {
		if v, err := modelriver.NewVerifier(secrets...); v != nil || !errors.Is(err, modelriver.ErrNoSecret) {
			t.Errorf("%s: got %v, %v", name, v, err)
		}
	}
	// An HMAC with an empty key, made by Node: not even a Verifier that was not
	// made by NewVerifier takes it.
	const emptyKey = "fd093127ef880d3aaefaa56c829cbe7c0d7412d19384461a4cbe3efc852558ab"
	if err := new(modelriver.Verifier).Verify(docs(emptyKey), []byte(small)); !errors.Is(err, modelriver.ErrInvalidSignature) {
		t.Errorf("zero Verifier: got %v", err)
	}
}

func TestTolerance(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, row := range []struct {
		name      string
		tolerance time.Duration
		at        time.Time
		want      error // of the schemes that sign a timestamp
	}{
		{"now", time.Hour, now, nil},
		{"a little old", time.Hour, now.Add(-50 * time.Minute), nil},
		{"a little ahead", time.Hour, now.Add(50 * time.Minute), nil},
		{"too old", time.Hour, now.Add(-70 * time.Minute), modelriver.ErrTimestamp},
		{"too new", time.Hour, now.Add(70 * time.Minute), modelriver.ErrTimestamp},
		{"1970", time.Hour, time.Unix(0, 0), modelriver.ErrTimestamp},
		{"far future", time.Hour, time.Unix(1<<62, 0), modelriver.ErrTimestamp},
		{"far past", time.Hour, time.Unix(-1<<62, 0), modelriver.ErrTimestamp},
		{"off, a month old", 0, now.Add(-30 * 24 * time.Hour), nil},
		{"off, far future", 0, time.Unix(1<<62, 0), nil},
		{"below zero is off", -time.Hour, time.Unix(0, 0), nil},
	} {
		for _, scheme := range modelriver.Schemes() {
			verifier, err := modelriver.NewVerifier("other", "secret")
			if err != nil {
				t.Fatal(err)
			}
			verifier.Tolerance = row.tolerance
			header := http.Header{}
			if err := modelriver.Sign(header, scheme, "secret", row.at, []byte(small)); err != nil {
				t.Fatal(err)
			}
			want := row.want
			if scheme == "body" {
				want = nil // signs no timestamp
			}
			if err := verifier.Verify(header, []byte(small)); !errors.Is(err, want) {
				t.Errorf("%s, %s: got %v, want %v", row.name, scheme, err, want)
			}
			// A bad signature says nothing about its timestamp.
			if err := verifier.Verify(header, []byte(`{"data":{"a":2}}`)); !errors.Is(err, modelriver.ErrInvalidSignature) {
				t.Errorf("%s, %s, changed: got %v", row.name, scheme, err)
			}
		}
	}

	verifier, err := modelriver.NewVerifier("secret")
	if err != nil {
		t.Fatal(err)
	}
	verifier.Tolerance = 100 * 365 * 24 * time.Hour
	word := servers("0f03abf670f276b1223c46a5b9349805fea4597fe2e48c9f45d757a017994bff", "yesterday")
	if err := verifier.Verify(word, []byte(small)); !errors.Is(err, modelriver.ErrTimestamp) {
		t.Errorf("timestamp that is no number: got %v", err)
	}
}

func TestSign(t *testing.T) {
	t.Parallel()
	at := time.Unix(1767616496, 999)
	for scheme, want := range map[string]http.Header{
		"body":             docs(smallBody),
		"data":             servers(smallData, stamp),
		"timestamped-body": servers(smallTime, stamp),
	} {
		header := http.Header{}
		err := modelriver.Sign(header, scheme, "secret", at, []byte(small))
		if err != nil || len(header) != len(want) {
			t.Errorf("%s: got %v, %v", scheme, header, err)
		}
		for name := range want {
			if header.Get(name) != want.Get(name) {
				t.Errorf("%s: %s is %q, want %q", scheme, name, header.Get(name), want.Get(name))
			}
		}
	}
	verifier, _ := modelriver.NewVerifier("other", "secret")
	for want, header := range map[string]http.Header{
		"body":             with(docs(smallBody), "X-ModelRiver-Signature", smallData), // and no timestamp for it
		"data":             with(servers(smallData, stamp), "mr-signature", "00"),
		"timestamped-body": servers(smallTime, stamp),
		"":                 servers(smallBody, stamp),
	} {
		if scheme, err := verifier.VerifyScheme(header, []byte(small)); scheme != want || (err == nil) != (want != "") {
			t.Errorf("VerifyScheme: got %q, %v, want %q", scheme, err, want)
		}
	}
	if got := strings.Join(modelriver.Schemes(), " "); got != "body data timestamped-body" {
		t.Errorf("Schemes: got %q", got)
	}
	for _, row := range []struct{ scheme, payload string }{
		{"", small}, {"BODY", small}, {"sha256", small},
		{"data", `{"a":1}`}, {"data", `[]`}, {"data", ``}, {"data", small + "x"},
	} {
		header := http.Header{}
		if err := modelriver.Sign(header, row.scheme, "secret", at, []byte(row.payload)); err == nil || len(header) > 0 {
			t.Errorf("%q of %s: got %v, %v, want an error", row.scheme, row.payload, header, err)
		}
	}
}

// What was verified is what is parsed, in every way to give data twice.
func TestVerifiedIsParsed(t *testing.T) {
	t.Parallel()
	verifier, err := modelriver.NewVerifier("secret")
	if err != nil {
		t.Fatal(err)
	}
	header := servers(smallData, stamp)
	verified := 0
	for _, payload := range []string{
		`{"data":{"a":1}}`,
		`{"data":{"a":2},"data":{"a":1}}`,
		`{"data":{"a":1},"data":{"a":2}}`,
		`{"d\u0061ta":{"a":2},"data":{"a":1}}`,
		`{"data":{"a":2},"d\u0061ta":{"a":1}}`,
		`{"data":{"a":1},"d\u0061ta":{"a":2}}`,
		`{"data":{"a":1},"Data":{"a":2}}`,
		`{"data":{"a":1},"ai_response":{"data":{"a":2}}}`,
		`{"type":"task.ai_generated","data":{"a":1},"ai_response":{"data":{"a":2}}}`,
		`{"type":"task.ai_generated","data":{"a":1},"ai_response":"forged"}`,
		`{"type":"task.completed","data":{"a":1},"ai_response":{"data":{"a":2}}}`,
	} {
		if verifier.Verify(header, []byte(payload)) != nil {
			continue
		}
		verified++
		event, err := modelriver.ParseEvent(header, []byte(payload))
		if err != nil || string(event.Data) != `{"a":1}` {
			t.Errorf("%s: got %s, %v", payload, event.Data, err)
		}
	}
	if verified != 9 {
		t.Errorf("%d payloads verified", verified)
	}

	// Signed data that carries nothing lets nothing else in either.
	header = servers("5f8b6afe3fcd3e2a8232c7997f32a76fa96bf72640d722ebfe7d8261c7d88743", stamp)
	forged := []byte(`{"data":null,"ai_response":{"data":{"a":2}}}`)
	if err := verifier.Verify(header, forged); err != nil {
		t.Fatal(err)
	}
	if event, err := modelriver.ParseEvent(header, forged); err != nil || event.Data != nil {
		t.Errorf("got %s, %v", event.Data, err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("body", stamp, []byte(small))
	f.Add("data", stamp, []byte(small))
	f.Add("data", "-1", []byte(`{"data": {"a" : 1}}`))
	f.Add("data", "0", []byte(`{"data":null,"data":"\ud800"}`))
	f.Add("timestamped-body", stamp, []byte(longBody))
	f.Add("timestamped-body", "", []byte("\xff{"))
	f.Add("data", stamp, []byte(nestedBody))
	verifier, err := modelriver.NewVerifier("other", "secret")
	if err != nil {
		f.Fatal(err)
	}
	stranger, err := modelriver.NewVerifier("wrong")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, timestamp string, payload []byte) {
		before := bytes.Clone(payload)
		// Whatever the headers hold, nobody without the key gets in.
		for _, header := range []http.Header{docs(text), servers(text, timestamp), with(docs(text), "X-ModelRiver-Signature", text)} {
			if verifier.Verify(header, payload) == nil {
				t.Fatal("verified without the key")
			}
		}
		seconds, _ := strconv.ParseInt(timestamp, 10, 64)
		for _, scheme := range modelriver.Schemes() {
			header := http.Header{}
			if err := modelriver.Sign(header, scheme, "secret", time.Unix(seconds, 0), payload); err != nil {
				if scheme != "data" || hasData(payload) {
					t.Fatalf("%s: %v", scheme, err)
				}
				continue
			}
			if err := verifier.Verify(header, payload); err != nil {
				t.Fatalf("%s: %v", scheme, err)
			}
			if stranger.Verify(header, payload) == nil {
				t.Fatalf("%s: verified with another key", scheme)
			}
			if scheme != "data" && verifier.Verify(header, append(bytes.Clone(payload), ' ')) == nil {
				t.Fatalf("%s: verified another payload", scheme)
			}
		}
		if !bytes.Equal(before, payload) {
			t.Fatal("the payload was changed")
		}
	})
}

// hasData reports, by encoding/json, whether payload is an object with a data member.
func hasData(payload []byte) bool {
	var m map[string]json.RawMessage
	return json.Unmarshal(payload, &m) == nil && m["data"] != nil
}
