package modelriver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
)

// maxResponse is how much of a callback's answer is read, enough for an error
// message. maxDrain is how long the rest of an accepted one may take.
const (
	maxResponse = 4 << 10
	maxDrain    = time.Second
)

// A StatusError is an answer to a callback that is not 2xx.
type StatusError struct {
	Code       int
	RetryAfter time.Duration // what the answer's Retry-After asks for, or 0
	Body       string        // the beginning of the answer
}

func (e *StatusError) Error() string {
	if e.Body == "" {
		return fmt.Sprintf("answered %d %s", e.Code, http.StatusText(e.Code))
	}
	return fmt.Sprintf("answered %d %s: %s", e.Code, http.StatusText(e.Code), e.Body)
}

// Retryable reports whether a callback that failed with err may succeed later: after
// a network error, and after an answer of 408, 425, 429 or 5xx.
func Retryable(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		switch status.Code {
		case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
			return true
		}
		return status.Code >= 500
	}
	return err != nil && !errors.Is(err, ErrCallbackHost)
}

// A Client sends requests and callbacks. An empty Client is not valid: use [NewClient]. It is
// safe for concurrent use.
type Client struct {
	apiKey  string
	hosts   []allowedHost
	askURL  string
	timeout time.Duration
	http    http.Client
}

// ClientOptions are the settings of a [Client].
type ClientOptions struct {
	// APIKey is sent with each request and callback. It may be empty.
	APIKey string

	// APIURL is ModelRiver's address, such as https://api.modelriver.com: requests go
	// there, and its host may get the key. http is allowed for a loopback host.
	APIURL string

	// Hosts are the others that may get the key, each "host" or "host:port". One without
	// a port stands for port 443, or for every port of a loopback host.
	Hosts []string

	// Timeout is how long a request or a callback may take. It must be longer than zero.
	Timeout time.Duration

	// HTTPClient is what callbacks are sent with, for a proxy or a certificate of one's
	// own; redirects are not followed all the same. Defaults to one that takes the proxy
	// from the environment.
	HTTPClient *http.Client
}

// NewClient returns a Client, or an error if one of the options is not usable.
func NewClient(options ClientOptions) (*Client, error) {
	if strings.ContainsFunc(options.APIKey, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, errors.New("API key: contains white space or control characters")
	}
	if options.Timeout <= 0 {
		return nil, fmt.Errorf("callback timeout %s: must be longer than zero", options.Timeout)
	}
	api, err := parseAPIURL(options.APIURL)
	if err != nil {
		return nil, err
	}
	c := &Client{
		apiKey: options.APIKey, timeout: options.Timeout, hosts: []allowedHost{api},
		askURL: strings.TrimRight(options.APIURL, "/") + "/v1/ai/async",
	}
	for _, entry := range options.Hosts {
		host, err := parseHost(entry)
		if err != nil {
			return nil, err
		}
		c.hosts = append(c.hosts, host)
	}
	if options.HTTPClient != nil {
		c.http = *options.HTTPClient
	}
	if c.http.Transport == nil {
		c.http.Transport = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			ForceAttemptHTTP2:   true,
			MaxIdleConns:        256,
			MaxIdleConnsPerHost: 64, // two, the default, opens a connection for most callbacks of a burst
			// Shorter than servers keep one, such as Node's 5 s: of a request that is written in the moment
			// in which the server closes the connection, nobody knows whether it was read.
			IdleConnTimeout:        4 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // another host could read the key
	}
	return c, nil
}

// An Answer is what came back for a callback. Its zero value is that nothing did.
type Answer struct {
	Status int
	Body   string // the beginning, in one line, without the API key
}

// SendCallback is [Client.PostCallback] that returns only the status of the answer.
func (c *Client) SendCallback(ctx context.Context, callbackURL string, body []byte) (status int, err error) {
	answer, err := c.PostCallback(ctx, callbackURL, body)
	return answer.Status, err
}

// PostCallback posts body to callbackURL with the API key and returns the answer. The error
// is nil if that is 2xx, [ErrCallbackHost] without sending anything to a host that it does
// not allow, a [*StatusError] for any other answer, a redirect too, and otherwise the
// network's error. [Retryable] tells which may pass.
func (c *Client) PostCallback(ctx context.Context, callbackURL string, body []byte) (Answer, error) {
	if _, err := c.Host(callbackURL); err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()

	request, err := c.newRequest(ctx, callbackURL, body)
	if err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrCallbackHost, err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return Answer{}, c.networkError(ctx, err)
	}
	defer response.Body.Close()

	// Read a little: for the message, and because only a connection whose answer was
	// read to its end is used again. An answer that trickles in is not waited for.
	defer time.AfterFunc(maxDrain, cancel).Stop()
	read, err := io.ReadAll(io.LimitReader(response.Body, maxResponse))
	if err != nil || len(read) == maxResponse {
		read = read[:max(0, len(read)-len(c.apiKey))] // where it is cut off may be in the key
	}
	answer := Answer{Status: response.StatusCode, Body: c.excerpt(read)}
	if answer.Status >= 200 && answer.Status <= 299 {
		return answer, nil
	}
	return answer, &StatusError{
		Code:       answer.Status,
		RetryAfter: retryAfter(response.Header.Get("Retry-After"), time.Now()),
		Body:       answer.Body,
	}
}

// CloseIdle closes connections that are kept for later callbacks.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// excerpt makes an answer fit to be kept: short, one line of valid text, and without
// the key, which a server may echo.
func (c *Client) excerpt(answer []byte) string {
	s := strings.Join(strings.Fields(strings.ToValidUTF8(string(answer), "\uFFFD")), " ")
	if c.apiKey != "" {
		s = strings.ReplaceAll(s, c.apiKey, "[API key]")
	}
	s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	if runes := []rune(s); len(runes) > 300 {
		s = string(runes[:300]) + "…"
	}
	return s
}

// retryAfter reads a Retry-After header, in seconds or as a date.
func retryAfter(value string, now time.Time) time.Duration {
	const day = 24 * time.Hour // longer than any window
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(max(seconds, 0), int64(day/time.Second))) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return min(max(date.Sub(now), 0), day)
	}
	return 0
}

// CallbackBody returns the body of a callback that reports data as stored in the
// named collection under the id recordID. ModelRiver takes an object only, so an
// array is wrapped as items and a scalar as content
// (https://modelriver.com/docs/webhooks/event-driven).
func CallbackBody(data json.RawMessage, collection, recordID string, savedAt time.Time) (json.RawMessage, error) {
	data = bytes.Trim(data, " \t\r\n")
	if len(data) > 0 && !rawjson.IsObject(data) && !json.Valid(data) {
		return nil, errors.New("data is not a JSON value") // wrapped, it could become one
	}
	object := data
	switch {
	case rawjson.IsNull(data):
		object = json.RawMessage("{}")
	case rawjson.IsObject(data):
	case data[0] == '[':
		object = fmt.Appendf(nil, `{"items":%s}`, data)
	default:
		object = fmt.Appendf(nil, `{"content":%s}`, data)
	}
	object, err := rawjson.SetMembers(object,
		rawjson.Member{Name: "id", Value: rawjson.String(recordID)},
		rawjson.Member{Name: "saved_at", Value: rawjson.String(savedAt.UTC().Format("2006-01-02T15:04:05.000Z"))},
	)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"data":%s,"task_id":%s,"metadata":{"database":"pocketbase","table":%s,"record_id":%s}}`,
		object, rawjson.String("pocketbase_"+recordID), rawjson.String(collection), rawjson.String(recordID)), nil
}

// ErrorCallbackBody returns the body of a callback that reports that the event could
// not be stored, and why.
func ErrorCallbackBody(message string) json.RawMessage {
	return fmt.Appendf(nil, `{"error":"processing_failed","message":%s}`, rawjson.String(message))
}
