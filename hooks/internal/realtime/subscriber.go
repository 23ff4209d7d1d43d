package realtime

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
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

	// How often it was begun to tell it what is live of new topics, before their events, and how often
	// that has ended: topics may be set at the same time.
	tellings, tellingsEnded atomic.Int64

	key string // of its event ids

	// Guarded by the fan-out's lock.
	views       []view      // the last one, and those before it that apply to changes it has not sent; replaced, never altered
	lastEventId string      // that it named when it came
	away        *time.Timer // if its connection has ended, until it is forgotten
	told        *view       // that it was told what is live of
	topicCount  int
	dropped     bool // some of its topics, at a moment
	droppedAt   int64
	missed      bool // what was decided then, until it had them again

	ready chan struct{} // there may be something to do
	mu    sync.Mutex
	queue []message
}

// A message is one to a subscriber. Those of the fan-out have an id that tells where in
// the log they are, and the others the client's, as PocketBase has it.
type message struct {
	subscriptions.Message
	id       string
	ofFanOut bool
}

func (f *FanOut) newSubscriber(client *subscriptions.DefaultClient, request *http.Request) *subscriber {
	s := &subscriber{
		DefaultClient: client, fanOut: f, ready: make(chan struct{}, 1),
		key: security.RandomString(15), lastEventId: lastEventId(request),
	}
	s.topics.Store(&[]topic{})
	s.onlyOurs.Store(true) // it has none: one that waits for its turn costs PocketBase's broadcast nothing
	return s
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
	tellings := s.tellingsEnded.Load()
	s.mu.Lock()
	messages := s.queue
	s.queue = nil
	s.mu.Unlock()
	messages, ok := s.collect(messages, tellings)
	if !ok {
		s.Discard() // nor may it come back to this
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
// a size, unless something is told since that comes first. It returns false if some are
// forgotten.
func (s *subscriber) collect(messages []message, tellings int64) ([]message, bool) {
	changes, views, position, ok := s.fanOut.unsent(s)
	for i, m := range messages {
		if m.ofFanOut {
			messages[i].id = s.eventId(position)
		}
	}
	if !ok || tellings != s.tellings.Load() || len(changes) == 0 {
		return messages, ok
	}
	size := 0
	for _, c := range changes {
		if size > maxFlush {
			if !s.fanOut.inBurst() {
				s.wake() // else the next round does
			}
			break
		}
		position++
		more, sure := s.messagesOf(c, views, position)
		if !sure {
			return messages, false
		}
		messages = append(messages, more...)
		for _, m := range more {
			size += len(m.Data)
		}
	}
	s.fanOut.sent(s, position)
	if len(views) > 1 {
		messages = append(messages, s.place(views[len(views)-1], position)...)
	}
	return messages, true
}

// place tells a position of the log on a topic of the view. Whoever came by another view may
// hear no event that does, as it listens no more to the topics that it left; and once that
// view is forgotten, it cannot come back to any earlier place.
func (s *subscriber) place(v view, position int64) []message {
	t := leaveTopicOf(v.topics, "")
	if t == nil {
		return nil
	}
	return []message{{Message: subscriptions.Message{Name: t.name, Data: alive}, id: s.eventId(position)}}
}

// messagesOf returns what the change is to the subscriber's topics, and false if nobody
// knows. Whoever is told what leaves hears of a delete, too, that had begun when it came:
// its list may still have the record.
func (s *subscriber) messagesOf(c *change, views []view, position int64) (messages []message, sure bool) {
	last := -1 // only with the last message of a change it is all there
	for _, leave := range []bool{false, true} {
		moment := c.moment
		if leave {
			moment = max(moment, c.until)
		}
		v := viewAt(views, moment)
		if v == nil {
			continue
		}
		for _, t := range v.topics {
			if t.leave != leave {
				continue
			}
			if c.unsure(*v, t) {
				return nil, false
			}
			data := c.dataFor(*v, t)
			if len(data) == 0 {
				continue
			}
			m := message{Message: subscriptions.Message{Name: t.name, Data: data}, id: s.Id()}
			if leave {
				m.id = s.eventId(position - 1)
				last = len(messages)
			}
			messages = append(messages, m)
		}
	}
	if last >= 0 {
		messages[last].id = s.eventId(position)
	}
	return messages, true
}

// write sends the messages through the app's hooks, or all in one write if there are
// none: a large one goes past the small buffers of net/http.
func (s *subscriber) write(e *core.RealtimeConnectRequestEvent, messages []message) error {
	if sends := e.App.OnRealtimeMessageSend(); sends.Length() > 0 {
		for i := range messages {
			messages[i].Data = slices.Clone(messages[i].Data) // which a hook may alter in place
			event := &core.RealtimeMessageEvent{RequestEvent: e.RequestEvent, Client: s, Message: &messages[i].Message}
			err := sends.Trigger(event, func(event *core.RealtimeMessageEvent) error {
				return event.Message.WriteSSE(event.Response, messages[i].id)
			})
			if err != nil {
				return err
			}
		}
		return e.Flush()
	}

	size := 0
	for _, m := range messages {
		size += len("id:\nevent:\ndata:\n\n") + len(m.id) + len(m.Name) + len(m.Data)
	}
	buffer := flushBuffers.Get().(*[]byte)
	b := slices.Grow((*buffer)[:0], size)
	for _, m := range messages { // as Message.WriteSSE has it
		b = append(append(append(b, "id:"...), m.id...), '\n')
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
func (s *subscriber) Send(m subscriptions.Message) { s.send(message{Message: m, id: s.Id()}) }

// tell sends what the fan-out itself has to say of a topic.
func (s *subscriber) tell(t topic, data []byte) {
	s.send(message{Message: subscriptions.Message{Name: t.name, Data: data}, ofFanOut: true})
}

func (s *subscriber) send(m message) {
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

// Discard ends the connection. PocketBase does so too when it has ended.
func (s *subscriber) Discard() {
	s.DefaultClient.Discard()
	s.fanOut.mu.Lock()
	if s.away == nil {
		s.fanOut.forget(s)
	}
	s.fanOut.others = nil
	s.fanOut.mu.Unlock()
	s.wake()
}
