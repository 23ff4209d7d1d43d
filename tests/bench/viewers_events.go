//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

// feed takes what came over the viewer's connection: chunks of an HTTP body, however
// they are split.
func (w *watcher) feed(v *viewer, b []byte) error {
	for len(b) > 0 {
		switch {
		case v.left > 0:
			n := min(v.left, len(b))
			v.message = append(v.message, b[:n]...)
			v.left -= n
			b = b[n:]
			if v.left == 0 {
				v.skip = len("\r\n")
			}
			w.messages(v)
		case v.skip > 0:
			n := min(v.skip, len(b))
			v.skip -= n
			b = b[n:]
		default:
			end := bytes.IndexByte(b, '\n')
			if end < 0 {
				v.line = append(v.line, b...)
				return nil
			}
			v.line = append(v.line, b[:end]...)
			b = b[end+1:]
			size, err := strconv.ParseInt(string(bytes.TrimSpace(v.line)), 16, 32)
			v.line = v.line[:0]
			if err != nil {
				return err
			}
			if size == 0 {
				return io.EOF
			}
			v.left = int(size)
		}
	}
	return nil
}

// messages takes the whole SSE messages off what came.
func (w *watcher) messages(v *viewer) {
	rest := v.message
	for {
		end := bytes.Index(rest, []byte("\n\n"))
		if end < 0 {
			break
		}
		w.take(v, rest[:end])
		rest = rest[end+2:]
	}
	v.message = v.message[:copy(v.message, rest)]
}

var (
	connectEvent  = []byte("event:PB_CONNECT\n")
	contentEvent  = []byte("event:aiContent/*")
	dataStart     = []byte("data:")
	channelStart  = []byte(`"channelId":"`)
	createdAction = []byte(`"action":"create"`)
	liveAction    = []byte(`"action":"live"`)
	aliveAction   = []byte(`"action":"alive"`)
)

func (w *watcher) take(v *viewer, message []byte) {
	at := bytes.Index(message, dataStart)
	if at < 0 {
		if len(message) > 0 && message[0] != ':' { // not a comment, which keeps alive
			w.note(fmt.Sprintf("a message without data: %q", message))
		}
		return
	}
	head, data := message[:at], message[at+len(dataStart):]
	if bytes.Contains(head, connectEvent) {
		var connect struct{ ClientId string }
		json.Unmarshal(data, &connect)
		v.clientId = connect.ClientId
		return
	}
	if (w.config.Own || w.config.Filter != "") && (bytes.Contains(data, liveAction) || bytes.Contains(data, aliveAction)) {
		return // what its subscription is answered
	}
	from := bytes.Index(data, channelStart) + len(channelStart)
	if !bytes.Contains(head, contentEvent) || from < len(channelStart) || from+channelLength > len(data) ||
		!bytes.Contains(data, createdAction) || data[len(data)-1] != '}' {
		w.note(fmt.Sprintf("an unexpected message: %q", message))
		return
	}
	if !v.checked {
		v.checked = true
		if !json.Valid(data) {
			w.note(fmt.Sprintf("a message that is no JSON: %q", message))
		}
	}
	seq, ok := sequence(string(data[from : from+channelLength]))
	i := seq - w.config.First
	if !ok || i < 0 || i >= w.config.Limit {
		w.note(fmt.Sprintf("a record that was not sent: %q", message))
		return
	}
	now := time.Now()
	w.lastCame = now
	v.Seqs = append(v.Seqs, int32(seq))
	v.At = append(v.At, now.UnixNano())
	if v.seen[i/64]&(1<<(i%64)) != 0 {
		v.Repeated++
		return
	}
	v.seen[i/64] |= 1 << (i % 64)
	w.got++
}
