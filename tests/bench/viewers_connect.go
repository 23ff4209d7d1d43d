//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// connect opens the viewer's stream, subscribes, and gives it to the reading thread.
func (w *watcher) connect(v *viewer) error {
	fd, err := w.dial()
	if err != nil {
		return err
	}
	v.fd, v.left, v.skip, v.clientId = fd, 0, 0, ""
	v.line, v.message = v.line[:0], v.message[:0]
	if err := w.subscribe(v); err != nil {
		syscall.Close(fd)
		return err
	}
	w.byFd.Store(fd, v)
	return syscall.EpollCtl(w.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: int32(fd)})
}

// dial connects a socket that Go's runtime does not know, so that the reading thread can.
func (w *watcher) dial() (fd int, err error) {
	addr, err := net.ResolveTCPAddr("tcp4", w.config.Addr)
	if err != nil {
		return 0, err
	}
	fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	limit := syscall.NsecToTimeval(int64(time.Minute))
	syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit)
	target := &syscall.SockaddrInet4{Port: addr.Port}
	copy(target.Addr[:], addr.IP.To4())
	if err := syscall.Connect(fd, target); err != nil {
		syscall.Close(fd)
		return 0, err
	}
	return fd, nil
}

// subscribe opens the stream, and asks for its records once it has told the client's id.
func (w *watcher) subscribe(v *viewer) error {
	if _, err := syscall.Write(v.fd, []byte("GET /api/realtime HTTP/1.1\r\nHost: "+w.config.Addr+"\r\nAccept: text/event-stream\r\n\r\n")); err != nil {
		return err
	}
	if err := w.readClientId(v); err != nil {
		return err
	}
	topic, filter := "aiContent/*", w.config.Filter
	if w.config.Own {
		filter = "channelId = '" + v.clientId + "'"
	}
	if filter != "" {
		topic += "?leave=1&options=" + url.QueryEscape(`{"query":{"filter":"`+filter+`"}}`)
	}
	request, err := http.NewRequest(http.MethodPost, "http://"+w.config.Addr+"/api/realtime",
		strings.NewReader(`{"clientId":"`+v.clientId+`","subscriptions":["`+topic+`"]}`))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if _, err := w.do(v, request, http.StatusNoContent); err != nil {
		return err
	}
	return syscall.SetNonblock(v.fd, true)
}

// readClientId reads the header, then the stream up to the message that tells the id.
func (w *watcher) readClientId(v *viewer) error {
	buffer := make([]byte, 4096)
	var head []byte
	for v.clientId == "" {
		n, err := syscall.Read(v.fd, buffer)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return fmt.Errorf("no stream: %w", errors.Join(err, io.EOF))
		}
		came := buffer[:n]
		if !bytes.Contains(head, []byte("\r\n\r\n")) {
			head = append(head, came...)
			at := bytes.Index(head, []byte("\r\n\r\n"))
			if at < 0 {
				continue
			}
			if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) || !bytes.Contains(head[:at], []byte("Transfer-Encoding: chunked")) {
				return fmt.Errorf("the server answered: %s", head)
			}
			came = head[at+4:]
		}
		if err := w.feed(v, came); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) do(v *viewer, request *http.Request, status int) ([]byte, error) {
	if v.token != "" {
		request.Header.Set("Authorization", v.token)
	}
	response, err := w.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != status {
		err = fmt.Errorf("%s %s was answered %s: %s", request.Method, request.URL.Path, response.Status, body)
	}
	return body, err
}

// reconnect is what a page does that was cut off: it connects, subscribes and reads
// the list again.
func (w *watcher) reconnect(v *viewer) {
	err := w.connect(v)
	if err == nil {
		err = w.readList(v)
	}
	if err != nil {
		w.note("connecting again: " + err.Error())
	}
}

// readList notes the newest record of the list.
func (w *watcher) readList(v *viewer) error {
	request, err := http.NewRequest(http.MethodGet, "http://"+w.config.Addr+"/api/collections/aiContent/records?perPage=20&sort=-@rowid&skipTotal=1", nil)
	if err != nil {
		return err
	}
	body, err := w.do(v, request, http.StatusOK)
	if err != nil {
		return err
	}
	var list struct {
		Items []struct{ ChannelId string }
	}
	if err := json.Unmarshal(body, &list); err != nil || len(list.Items) == 0 {
		return err
	}
	if seq, ok := sequence(list.Items[0].ChannelId); ok {
		w.mu.Lock()
		defer w.mu.Unlock()
		v.Newest = seq
	}
	return nil
}
