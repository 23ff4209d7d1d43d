package modelriver

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
)

// Errors returned by [NewVerifier] and [Verifier.Verify].
var (
	ErrNoSecret         = errors.New("no webhook secret")
	ErrMissingSignature = errors.New("no signature header")
	ErrInvalidSignature = errors.New("signature does not match")
	ErrTimestamp        = errors.New("signed timestamp is too far from now")
)

// A scheme is one way in which ModelRiver signs a webhook: an HMAC-SHA256 in hex,
// keyed with the bytes of the webhook's secret. ModelRiver's documentation and its
// own published servers differ in the headers and in the bytes they sign.
type scheme struct {
	name      string
	signature string // header
	timestamp string // header; empty if the scheme has no signed timestamp

	// signed returns the bytes that may have been signed, likeliest first. A nil
	// entry does not apply to this payload.
	signed func(timestamp string, payload []byte) [][]byte
}

// schemes are tried in this order, those whose headers are present.
var schemes = []scheme{
	{
		// The documentation and every guide: the raw body. mr-timestamp is not signed.
		name:      "body",
		signature: HeaderSignature,
		signed: func(_ string, payload []byte) [][]byte {
			return [][]byte{payload}
		},
	},
	{
		// ModelRiver's webhook-test-server and chatbot-async-app: the data member,
		// which they encode again before they sign it, so that white space is lost.
		name:      "data",
		signature: HeaderXSignature,
		timestamp: HeaderXTimestamp,
		signed: func(timestamp string, payload []byte) [][]byte {
			m, err := rawjson.Members(bytes.TrimPrefix(payload, []byte("\ufeff"))) // a byte order mark is no JSON
			if err != nil || m["data"] == nil {
				return nil
			}
			raw := joinTimestamp(timestamp, m["data"])
			var compact bytes.Buffer
			if err := json.Compact(&compact, m["data"]); err != nil || compact.Len() == len(m["data"]) {
				return [][]byte{raw}
			}
			return [][]byte{raw, joinTimestamp(timestamp, compact.Bytes())}
		},
	},
	{
		// chatbot-async-app's README, and what its code does without a data member.
		name:      "timestamped-body",
		signature: HeaderXSignature,
		timestamp: HeaderXTimestamp,
		signed: func(timestamp string, payload []byte) [][]byte {
			return [][]byte{joinTimestamp(timestamp, payload)}
		},
	},
}

func joinTimestamp(timestamp string, b []byte) []byte {
	joined := make([]byte, 0, len(timestamp)+1+len(b))
	joined = append(joined, timestamp...)
	joined = append(joined, '.')
	return append(joined, b...)
}

// Schemes returns the names that [Sign] takes, the documented one first.
func Schemes() []string {
	names := make([]string, len(schemes))
	for i, s := range schemes {
		names[i] = s.name
	}
	return names
}

// A Verifier checks that webhooks were signed with one of its secrets. An empty
// Verifier is not valid: use [NewVerifier]. It is safe for concurrent use.
type Verifier struct {
	// Tolerance is how far a signed timestamp may lie from now, in either
	// direction. It has no effect on the body scheme, which does not sign one.
	// Zero, the default, accepts any: ModelRiver sends a failed webhook again for
	// almost four hours and replays it for 30 days, perhaps with its first timestamp
	// (https://modelriver.com/docs/webhooks/delivery-and-retries).
	Tolerance time.Duration

	secrets [][]byte
	now     func() time.Time
}

// NewVerifier returns a Verifier for webhooks signed with any of the secrets:
// ModelRiver makes one for each webhook, and while a secret is rotated two are
// valid. It returns [ErrNoSecret] if there is none or if one of them is blank.
func NewVerifier(secrets ...string) (*Verifier, error) {
	if len(secrets) == 0 {
		return nil, ErrNoSecret
	}
	v := &Verifier{now: time.Now}
	for i, secret := range secrets {
		if strings.TrimSpace(secret) == "" {
			return nil, fmt.Errorf("%w: secret %d of %d is blank", ErrNoSecret, i+1, len(secrets))
		}
		v.secrets = append(v.secrets, []byte(secret))
	}
	return v, nil
}

// Verify reports whether payload was signed with one of the secrets. It returns
// [ErrMissingSignature], [ErrInvalidSignature] or [ErrTimestamp], and nothing about
// why a signature differs. payload must be the body as received; never encode it
// again.
//
// In the data scheme ModelRiver signs the data member only: nothing else in the
// payload is proven to come from it. See [Client.Host].
func (v *Verifier) Verify(header http.Header, payload []byte) error {
	_, err := v.VerifyScheme(header, payload)
	return err
}

// VerifyScheme is [Verifier.Verify] that also returns the scheme in which payload was
// signed, one of [Schemes].
func (v *Verifier) VerifyScheme(header http.Header, payload []byte) (scheme string, err error) {
	result := ErrMissingSignature
	for _, s := range schemes {
		// A header that is there twice is not ModelRiver's: a proxy and this server
		// could disagree about which one counts.
		if len(header.Values(s.signature)) != 1 {
			continue
		}
		timestamp := ""
		if s.timestamp != "" {
			if len(header.Values(s.timestamp)) != 1 {
				continue
			}
			timestamp = header.Get(s.timestamp)
		}

		if result == ErrMissingSignature {
			result = ErrInvalidSignature
		}
		if strings.ContainsAny(timestamp, `{}"`) {
			// Half a payload: one that was signed in the body scheme, cut at a dot, is
			// timestamp and payload of the others.
			continue
		}
		signature, err := hex.DecodeString(header.Get(s.signature))
		if err != nil || len(signature) != sha256.Size {
			continue
		}
		for _, signed := range s.signed(timestamp, payload) {
			if !v.matches(signature, signed) {
				continue
			}
			if s.timestamp != "" && !v.tolerates(timestamp) {
				result = ErrTimestamp
				continue
			}
			return s.name, nil
		}
	}
	return "", result
}

func (v *Verifier) matches(signature, signed []byte) bool {
	for _, secret := range v.secrets {
		if hmac.Equal(signature, digest(secret, signed)) {
			return true
		}
	}
	return false
}

func (v *Verifier) tolerates(timestamp string) bool {
	if v.Tolerance <= 0 {
		return true
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	return err == nil && v.now().Sub(time.Unix(seconds, 0)).Abs() <= v.Tolerance
}

func digest(secret, signed []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write(signed)
	return mac.Sum(nil)
}

// Sign sets the headers with which ModelRiver would send payload at time t, in the
// named scheme (one of [Schemes]). It returns an error for an unknown scheme and
// for a payload that the scheme cannot sign: "data" wants a JSON object with a data
// member.
func Sign(header http.Header, scheme, secret string, t time.Time, payload []byte) error {
	timestamp := strconv.FormatInt(t.Unix(), 10)
	for _, s := range schemes {
		if s.name != scheme {
			continue
		}
		signed := s.signed(timestamp, payload)
		if len(signed) == 0 {
			return fmt.Errorf("scheme %q: the payload is not a JSON object with a %q member", scheme, "data")
		}
		header.Set(s.signature, hex.EncodeToString(digest([]byte(secret), signed[0])))
		if s.timestamp != "" {
			header.Set(s.timestamp, timestamp)
		} else {
			header.Set(HeaderTimestamp, timestamp)
		}
		return nil
	}
	return fmt.Errorf("unknown scheme %q: use one of %s", scheme, strings.Join(Schemes(), ", "))
}
