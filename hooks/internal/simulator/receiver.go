package simulator

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"sync"
	"time"
)

// A callbackReceiver takes ModelRiver's place for callbacks.
type callbackReceiver struct {
	listener net.Listener
	server   *http.Server

	mu       sync.Mutex
	received []receivedCallback
	more     chan struct{} // signals that received has grown
}

type receivedCallback struct {
	at            time.Time
	channel       string
	authorization string
	body          []byte
}

func startCallbackReceiver() (*callbackReceiver, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &callbackReceiver{listener: listener, more: make(chan struct{}, 1)}
	r.server = &http.Server{
		ReadTimeout: 30 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			body, err := io.ReadAll(request.Body)
			if err != nil {
				return
			}
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"success":true}`)
			r.mu.Lock()
			r.received = append(r.received, receivedCallback{
				time.Now(), path.Base(request.URL.Path), request.Header.Get("Authorization"), body,
			})
			r.mu.Unlock()
			select {
			case r.more <- struct{}{}:
			default:
			}
		}),
	}
	go r.server.Serve(listener)
	return r, nil
}

// wait returns the next callback, or nil if none comes in time.
func (r *callbackReceiver) wait(ctx context.Context, limit time.Duration) (*receivedCallback, error) {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		r.mu.Lock()
		if len(r.received) > 0 {
			next := r.received[0]
			r.received = r.received[1:]
			r.mu.Unlock()
			return &next, nil
		}
		r.mu.Unlock()
		select {
		case <-r.more:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timeout.C:
			return nil, nil
		}
	}
}

func (r *callbackReceiver) url(channel string) string {
	return "http://" + r.listener.Addr().String() + "/v1/callback/" + url.PathEscape(channel)
}

// close lets the answer to the callback go out before the connection does.
func (r *callbackReceiver) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.server.Shutdown(ctx)
}
