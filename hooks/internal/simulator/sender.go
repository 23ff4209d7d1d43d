// Package simulator takes ModelRiver's place: it sends signed webhooks, and stands in for
// its API, to try things without an account.
package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// precision is what times are rounded to that are shown.
const precision = 100 * time.Microsecond

// A Sender posts webhooks as ModelRiver does.
type Sender struct {
	Secret, Scheme, URL string
	Tamper              bool // the payload is changed after it was signed
	HTTP                *http.Client
}

// An Answer is what a webhook was answered.
type Answer struct {
	Status int
	Body   []byte // up to 64 KiB
	Took   time.Duration
}

// Excerpt is the beginning of the body, on one line.
func (a Answer) Excerpt() string { return excerpt(a.Body) }

// Post signs the payload and posts it, with further headers. Its error says why there is
// no answer.
func (s *Sender) Post(ctx context.Context, payload []byte, header http.Header) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, nil)
	if err != nil {
		return Answer{}, err
	}
	maps.Copy(request.Header, header)
	request.Header.Set("Content-Type", "application/json")
	if err := modelriver.Sign(request.Header, s.Scheme, s.Secret, time.Now(), payload); err != nil {
		return Answer{}, err
	}
	if s.Tamper {
		if payload, err = tampered(payload); err != nil {
			return Answer{}, err
		}
	}
	request.Body = io.NopCloser(bytes.NewReader(payload))
	request.ContentLength = int64(len(payload))

	started := time.Now()
	response, err := s.HTTP.Do(request)
	if err != nil {
		return Answer{}, fmt.Errorf("%w: is the server running there?", WithoutURL(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return Answer{}, err
	}
	return Answer{response.StatusCode, body, time.Since(started).Round(precision)}, nil
}

// NoRedirect keeps what is signed, and what is found out, to the server that was named.
func NoRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// WithoutURL is err without the URL that net/http puts before it.
func WithoutURL(err error) error {
	var withURL *url.Error
	if errors.As(err, &withURL) {
		return withURL.Err
	}
	return err
}

// check returns what is wrong with the answer, and what to do.
func (s *Sender) check(a Answer) error {
	switch {
	case s.Tamper && a.Status == http.StatusUnauthorized:
		return nil
	case s.Tamper:
		return fmt.Errorf("the server did not refuse a payload that was changed after it was signed: %d", a.Status)
	case a.Status == http.StatusUnauthorized:
		return errors.New("the server has another MODELRIVER_WEBHOOK_SECRET than this command")
	case a.Status == http.StatusNotFound:
		return errors.New("the server receives no webhooks at this URL: see --url")
	case a.Status != http.StatusOK:
		return fmt.Errorf("the server did not take the webhook: %d %s", a.Status, http.StatusText(a.Status))
	}
	return nil
}

// tampered changes the AI data, which every scheme signs, or all of a payload without.
func tampered(payload []byte) ([]byte, error) {
	event, err := modelriver.ParseEvent(http.Header{}, payload)
	if err != nil {
		return nil, err
	}
	object := []byte(event.Data)
	at := bytes.LastIndex(payload, object)
	if len(object) == 0 || object[0] != '{' {
		object, at = payload, 0
	}
	with, err := rawjson.SetMembers(object, rawjson.Member{Name: "tampered", Value: json.RawMessage("true")})
	if err != nil {
		return nil, err
	}
	return slices.Concat(payload[:at], with, payload[at+len(object):]), nil
}
