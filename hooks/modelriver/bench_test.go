package modelriver_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// benchPayload is a webhook of about 1 KB in the shape of the documentation.
var benchPayload = []byte(`{"type":"task.ai_generated","event":"new_content","channel_id":"550e8400-e29b-41d4-a716-446655440000",` +
	`"ai_response":{"data":{"title":"A river town wakes up","description":"` + strings.Repeat("The ferry leaves at six. ", 16) +
	`","keywords":["river","morning","town"],"score":9007199254740993}},` +
	`"callback_url":"https://api.modelriver.com/v1/callback/550e8400-e29b-41d4-a716-446655440000","callback_required":true,` +
	`"customer_data":{"category":"stories","metadata.user_id":"usr_abc123"},` +
	`"meta":{"provider":"openai","model":"gpt-4o","duration_ms":2341,"tokens":{"prompt":245,"completion":89,"total":334}},` +
	`"timestamp":"2026-01-05T12:34:56.789Z"}`)

func benchVerifier(b *testing.B, scheme string) (*modelriver.Verifier, http.Header) {
	verifier, err := modelriver.NewVerifier("secret")
	if err != nil {
		b.Fatal(err)
	}
	header := http.Header{}
	if err := modelriver.Sign(header, scheme, "secret", time.Now(), benchPayload); err != nil {
		b.Fatal(err)
	}
	return verifier, header
}

func BenchmarkVerify(b *testing.B) {
	verifier, header := benchVerifier(b, "body")
	b.ReportAllocs()
	b.SetBytes(int64(len(benchPayload)))
	for b.Loop() {
		if err := verifier.Verify(header, benchPayload); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseEvent(b *testing.B) {
	for _, size := range []string{"1KB", "1MB"} {
		payload := benchPayload
		if size == "1MB" {
			payload = []byte(strings.Replace(string(benchPayload), "The ferry", strings.Repeat("The ferry ", 1<<20/10), 1))
		}
		b.Run(size, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(payload)))
			for b.Loop() {
				if _, err := modelriver.ParseEvent(nil, payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerifyAndParse(b *testing.B) {
	verifier, header := benchVerifier(b, "body")
	b.ReportAllocs()
	b.SetBytes(int64(len(benchPayload)))
	for b.Loop() {
		if err := verifier.Verify(header, benchPayload); err != nil {
			b.Fatal(err)
		}
		if _, err := modelriver.ParseEvent(header, benchPayload); err != nil {
			b.Fatal(err)
		}
	}
}
