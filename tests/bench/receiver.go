//go:build linux

package main

import (
	"bytes"
	"encoding/gob"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

// A receiverReport counts the callbacks that arrived.
type receiverReport struct {
	Total, Distinct int
	WithoutKey      int
	CPU             time.Duration
}

// runReceiver is ModelRiver's side of the callbacks: it accepts each at once. It
// writes its address, and a report for each command.
func runReceiver() error {
	runtime.GOMAXPROCS(1)
	dec, enc := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var report receiverReport
	seen := map[string]bool{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go receive(conn, func(path string, withKey bool) {
				mu.Lock()
				defer mu.Unlock()
				report.Total++
				if !seen[path] {
					seen[path] = true
					report.Distinct++
				}
				if !withKey {
					report.WithoutKey++
				}
			})
		}
	}()
	if err := enc.Encode(listener.Addr().String()); err != nil {
		return err
	}
	for {
		var command string
		if err := dec.Decode(&command); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		mu.Lock()
		report.CPU = ownCPU()
		err := enc.Encode(report)
		mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// receive answers the requests of one connection.
func receive(conn net.Conn, note func(path string, withKey bool)) {
	defer conn.Close()
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"success\":true}")
	key := []byte("\r\nAuthorization: Bearer " + apiKey + "\r\n")
	buffer := make([]byte, 64<<10)
	n := 0
	for {
		read, err := conn.Read(buffer[n:])
		if err != nil {
			return
		}
		n += read
		length := messageLength(buffer[:n])
		if length == 0 || n == len(buffer) && n < length {
			return
		}
		if length < 0 || n < length {
			continue
		}
		line, _, _ := bytes.Cut(buffer[:n], []byte(" HTTP/1.1"))
		note(string(line), bytes.Contains(buffer[:n], key))
		if _, err := conn.Write(answer); err != nil {
			return
		}
		n = copy(buffer, buffer[length:n])
	}
}
