package modelriver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
)

// maxAsked is how much of the answer to a request is read: it holds a channel id and the
// addresses of a socket.
const maxAsked = 64 << 10

// ErrUnfitInput is returned by [RequestBody] for an input that cannot be sent.
var ErrUnfitInput = errors.New("the input is not a JSON object, or its metadata is none")

// RequestBody returns the body of a request: the input with the workflow's name, and with
// the ids of request and user, at the top and in its metadata, wherever the workflow's
// cache fields look for them. They replace what the input has under those names.
func RequestBody(workflow string, input json.RawMessage, requestID, userID string) (json.RawMessage, error) {
	members, err := rawjson.Members(input)
	if err != nil {
		return nil, ErrUnfitInput
	}
	metadata := members["metadata"]
	if rawjson.IsNull(metadata) {
		metadata = json.RawMessage("{}")
	}
	ids := []rawjson.Member{
		{Name: "request_id", Value: rawjson.String(requestID)},
		{Name: "user_id", Value: rawjson.String(userID)},
	}
	if metadata, err = rawjson.SetMembers(metadata, ids...); err != nil {
		return nil, ErrUnfitInput
	}
	return rawjson.SetMembers(input, append(ids,
		rawjson.Member{Name: "metadata", Value: metadata},
		rawjson.Member{Name: "workflow", Value: rawjson.String(workflow)},
	)...)
}

// Asked is what is known of a request after one attempt to send it.
type Asked struct {
	Status     int           // of the answer; 0 if none came
	ChannelID  string        // that ModelRiver gave the request; empty if it gave none
	Message    string        // why not, in ModelRiver's words, if it said so
	RetryAfter time.Duration // what the answer's Retry-After asks for, or 0

	// Written says that some of the request was written to a connection, so that
	// ModelRiver may have begun to work on it.
	Written bool

	Err error // why no answer came, or not all of it
}

// Ask posts the body of a request, once. Of the answer it returns only what [Asked] holds:
// the token of the socket is not even kept.
func (c *Client) Ask(ctx context.Context, body []byte) (asked Asked) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var written atomic.Bool
	written.Store(true) // until a transport says otherwise
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// net/http repeats a POST by itself only if nothing of it was processed, and over
		// a new connection: what counts is the last one.
		GetConn:          func(string) { written.Store(false) },
		GotConn:          func(httptrace.GotConnInfo) { written.Store(false) },
		WroteHeaderField: func(string, []string) { written.Store(true) },
		WroteHeaders:     func() { written.Store(true) },
		WroteRequest:     func(httptrace.WroteRequestInfo) { written.Store(true) },
	})

	request, err := c.newRequest(ctx, c.askURL, body)
	if err != nil {
		return Asked{Err: err}
	}
	response, err := c.http.Do(request)
	if err != nil {
		return Asked{Written: written.Load(), Err: c.networkError(ctx, err)}
	}
	defer response.Body.Close()

	asked = Asked{Status: response.StatusCode, Written: true, RetryAfter: retryAfter(response.Header.Get("Retry-After"), time.Now())}
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAsked))
	if err != nil {
		asked.Err = c.networkError(ctx, err)
	}
	if members, err := rawjson.Members(bytes.TrimPrefix(answer, []byte("\ufeff"))); err == nil {
		if id := rawjson.TextOrNumber(members["channel_id"]); len(id) <= 1000 && !strings.Contains(id, "\x00") {
			asked.ChannelID = id
		}
		asked.Message = c.excerpt([]byte(failureOf(func(name string) json.RawMessage { return members[name] })))
	}
	return asked
}

// failureOf returns the message of what tells of an error: {"error":{"message":…}},
// {"error":"…"}, or {"status":"error","message":…}. It is empty for anything else.
func failureOf(member func(name string) json.RawMessage) string {
	failure := member("error")
	text := firstText(failure, rawjson.OptionalMembers(failure)["message"])
	if text == "" && strings.EqualFold(rawjson.Text(member("status")), "error") {
		text = rawjson.Text(member("message"))
	} else if text != "" || !rawjson.IsObject(failure) {
		return text
	}
	return cmp.Or(text, "ModelRiver reported an error without a message")
}

// newRequest returns a POST of JSON with the API key.
func (c *Client) newRequest(ctx context.Context, url string, body []byte) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.apiKey)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "PocketRiver")
	return request, nil
}

// networkError returns why no answer came, fit to be kept.
func (c *Client) networkError(ctx context.Context, err error) error {
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err // what is kept names the URL already
	}
	if ctx.Err() == context.DeadlineExceeded {
		return fmt.Errorf("no answer within %s", c.timeout)
	}
	if text := c.excerpt([]byte(err.Error())); text != err.Error() {
		return errors.New(text) // a broken answer is quoted in it
	}
	return err
}
