package realtime

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/subscriptions"
)

// A subscriber is a realtime client. Its connection is written to by the goroutine
// that serves it, so that messages keep their order and nobody else waits.
type subscriber struct {
	*subscriptions.DefaultClient
	fanOut   *FanOut
	topics   atomic.Pointer[[]topic] // those that the fan-out serves
	onlyOurs atomic.Bool             // it has no others
	position atomic.Int64            // in the log, of what it has not sent
	writing  atomic.Bool             // it was woken by a round, and is not done yet

	// The last one, and those before it that apply to changes it has not sent. Guarded by
	// the fan-out's lock, and replaced, never altered.
	views []view

	ready chan struct{} // there may be something to do
	mu    sync.Mutex
	queue []subscriptions.Message // those that PocketBase and the app send
}

func (s *subscriber) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// flush writes what waits, or a part of it, and reports whether there was anything.
func (s *subscriber) flush(e *core.RealtimeConnectRequestEvent) (bool, error) {
	defer s.writing.Store(false)
	s.mu.Lock()
	messages := s.queue
	s.queue = nil
	s.mu.Unlock()
	messages, ok := s.collect(messages)
	if !ok {
		return false, errors.New("it has fallen too far behind")
	}
	if len(messages) == 0 {
		return false, nil
	}

	// Over HTTP/2 a deadline that passes ends the stream, idle or not: it is for this
	// write only.
	connection := http.NewResponseController(e.Response)
	if err := connection.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return false, err
	}
	if err := s.write(e, messages); err != nil {
		return true, err
	}
	_ = connection.SetWriteDeadline(time.Time{}) // fails as above, or with the next write
	return true, nil
}

// collect adds to the messages those of the changes that were published since, up to
// a size. It returns false if some are forgotten.
func (s *subscriber) collect(messages []subscriptions.Message) ([]subscriptions.Message, bool) {
	changes, views, ok := s.fanOut.unsent(s)
	if !ok || len(changes) == 0 {
		return messages, ok
	}
	position := s.position.Load()
	size := 0
	for _, c := range changes {
		if size > maxFlush {
			if !s.fanOut.inBurst() {
				s.wake() // else the next round does
			}
			break
		}
		position++
		v := viewAt(views, c.moment)
		if v == nil {
			continue
		}
		for _, t := range v.topics {
			if c.unsure(*v, t) {
				return messages, false
			}
			data := c.dataFor(*v, t)
			if len(data) == 0 {
				continue
			}
			messages = append(messages, subscriptions.Message{Name: t.name, Data: data})
			size += len(data)
		}
	}
	s.fanOut.sent(s, position)
	return messages, true
}

// write sends the messages through the app's hooks, or all in one write if there are
// none: a large one goes past the small buffers of net/http.
func (s *subscriber) write(e *core.RealtimeConnectRequestEvent, messages []subscriptions.Message) error {
	if sends := e.App.OnRealtimeMessageSend(); sends.Length() > 0 {
		for i := range messages {
			messages[i].Data = slices.Clone(messages[i].Data) // which a hook may alter in place
			event := &core.RealtimeMessageEvent{RequestEvent: e.RequestEvent, Client: s, Message: &messages[i]}
			err := sends.Trigger(event, func(event *core.RealtimeMessageEvent) error {
				return event.Message.WriteSSE(event.Response, event.Client.Id())
			})
			if err != nil {
				return err
			}
		}
		return e.Flush()
	}

	size := 0
	for _, m := range messages {
		size += len("id:\nevent:\ndata:\n\n") + len(s.Id()) + len(m.Name) + len(m.Data)
	}
	buffer := flushBuffers.Get().(*[]byte)
	b := slices.Grow((*buffer)[:0], size)
	for _, m := range messages { // as Message.WriteSSE has it
		b = append(append(append(b, "id:"...), s.Id()...), '\n')
		b = append(append(append(b, "event:"...), m.Name...), '\n')
		b = append(append(append(b, "data:"...), m.Data...), "\n\n"...)
	}
	_, err := e.Response.Write(b)
	if cap(b) <= 2*maxFlush { // a larger one is not kept
		*buffer = b
		flushBuffers.Put(buffer)
	}
	if err != nil {
		return err
	}
	return e.Flush()
}

var flushBuffers = sync.Pool{New: func() any { return new([]byte) }}

// Send has the message sent after those before it. It never blocks.
func (s *subscriber) Send(m subscriptions.Message) {
	s.mu.Lock()
	full := len(s.queue) >= maxQueued
	if !full {
		s.queue = append(s.queue, m)
	}
	s.mu.Unlock()
	if full {
		s.Discard()
		return
	}
	s.wake()
}

// Discard ends the connection.
func (s *subscriber) Discard() {
	s.DefaultClient.Discard()
	s.fanOut.mu.Lock()
	s.fanOut.forget(s)
	s.fanOut.others = nil
	s.fanOut.mu.Unlock()
	s.wake()
}
