package tests

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// REPLICA_URL is taken away and set again: what was written between is not in the replica, if the
// server without it did not end by itself, and the replica cannot be restored any more.
func TestReplicaTakenAwayAndSetAgain(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*server){"killed": (*server).Kill, "stopped": (*server).Stop} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newFolderStore(t)
			s := startServer(t, newDataDir(t, t.TempDir()), append(store.env, "REPLICA_ACK=wait")...)
			token := s.Superuser()
			s.fillWAL()
			s.awaitShipped(token)
			s.Stop()

			env := s.env
			s.env = append(slices.Clone(env), "REPLICA_URL=", "REPLICA_ACK=")
			s.Start()
			before, _ := walState(t, s.Dir)
			var titles []string
			for after, more := before, 0; more < 2; after, _ = walState(t, s.Dir) {
				if after != before {
					more++
				}
				title := fmt.Sprint("Meanwhile ", len(titles))
				s.mustSend(payload("channel-"+title, title, `,"filler":"`+strings.Repeat("x", 2000)+`"`))
				titles = append(titles, title)
			}
			end(s)

			s.env = env
			s.Start()
			s.sendTitled("After")
			s.awaitShipped(token)
			time.Sleep(2 * time.Second)
			s.Stop()
			out, errs, ok := runOn(t, s.binary, s.Dir, s.env, "restore", "--verify")
			if !ok {
				t.Errorf("verify: %s%s", out, errs)
			}
			s.loseMachine()
			copied := t.TempDir()
			if out, errs, ok := runOn(t, s.binary, t.TempDir(), s.env, "restore", "--into", copied); !ok {
				t.Fatalf("restore: %s%s", out, errs)
			}
			if n := countRows(t, openDatabase(t, copied), "aiContent WHERE title LIKE 'Meanwhile%'"); n != len(titles) {
				t.Errorf("got %d of %d records", n, len(titles))
			}
		})
	}
}
