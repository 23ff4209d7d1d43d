package tests

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// walState returns the salt of the WAL's header and how many frames have it.
func walState(t testing.TB, dir string) (salt uint64, frames int) {
	t.Helper()
	wal, err := os.ReadFile(filepath.Join(dir, "data.db-wal"))
	if err != nil || len(wal) < 32 {
		return 0, 0
	}
	size := 24 + int(binary.BigEndian.Uint32(wal[8:]))
	salt = binary.BigEndian.Uint64(wal[16:])
	for offset := 32; offset+size <= len(wal) && binary.BigEndian.Uint64(wal[offset+8:]) == salt; offset += size {
		frames++
	}
	return salt, frames
}

// fillWAL sends webhooks until SQLite would begin the WAL anew after some hundred frames more.
func (s *server) fillWAL() {
	s.t.Helper()
	for i := 0; ; i++ {
		if _, frames := walState(s.t, s.Dir); frames > 600 && frames < 900 {
			return
		}
		s.sendTitled(fmt.Sprint("Shipped ", i))
	}
}

// A server that starts while the store is away misses nothing for the replica, though SQLite's own
// checkpoint would begin the WAL anew over what was not shipped yet.
func TestReplicaMissesWhatWasCheckpointedWhileTheStoreWasAway(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s := startServer(t, newDataDir(t, t.TempDir()), append(store.env, "REPLICA_ACK=wait")...)
	token := s.Superuser()
	s.fillWAL()
	s.awaitShipped(token)
	s.Kill()
	store.set(storeCuts)
	s.Start()
	before, frames := walState(t, s.Dir)
	t.Logf("WAL at the start: %d frames", frames)
	var titles []string
	for after, more := before, 0; more < 2; after, _ = walState(t, s.Dir) {
		if after != before {
			more++
		}
		title := fmt.Sprint("Meanwhile ", len(titles))
		body := payload("channel-"+title, title, `,"filler":"`+strings.Repeat("x", 2000)+`"`)
		if status := s.Send(body); status != http.StatusServiceUnavailable {
			t.Fatalf("while the store is away: got %d", status)
		}
		titles = append(titles, title)
	}
	_, frames = walState(t, s.Dir)
	t.Logf("WAL began anew: %d frames, %d webhooks", frames, len(titles))
	store.set(storeIsWell)
	for _, title := range titles { // ModelRiver sends each again until it is acknowledged
		body := payload("channel-"+title, title, `,"filler":"`+strings.Repeat("x", 2000)+`"`)
		await(t, "acknowledged", func() bool { return s.Send(body) == http.StatusOK })
	}
	time.Sleep(2 * time.Second)
	s.wantTitles(titles)
	s.args = []string{"--takeover"}
	s.loseMachine()
	s.Start()
	s.wantTitles(titles)
}

// What wrote while no server ran, began the WAL anew, and has the database open still, as an sqlite3 in
// another window has, leaves no gap in the replica.
func TestReplicaMissesWhatAnotherWroteBeforeItStarted(t *testing.T) {
	t.Parallel()
	s := startServer(t, newDataDir(t, t.TempDir()), append(newBucketStore(t).env, "REPLICA_ACK=wait")...)
	token := s.Superuser()
	s.fillWAL()
	s.awaitShipped(token)
	s.Stop()
	db := openDatabase(t, s.Dir)
	if _, err := db.NewQuery("CREATE TABLE beside (content)").Execute(); err != nil {
		t.Fatal(err)
	}
	rows := 0
	before, _ := walState(t, s.Dir)
	for after := before; after == before; after, _ = walState(t, s.Dir) {
		if _, err := db.NewQuery("INSERT INTO beside VALUES (randomblob(50000))").Execute(); err != nil {
			t.Fatal(err)
		}
		rows++
	}
	s.Start()
	s.sendTitled("After")
	s.awaitShipped(token)
	copied := t.TempDir()
	if out, errs, ok := runOn(t, s.binary, t.TempDir(), s.env, "restore", "--into", copied); !ok {
		t.Fatalf("restore: %s%s", out, errs)
	}
	if n := countRows(t, openDatabase(t, copied), "beside"); n != rows {
		t.Errorf("got %d of %d rows", n, rows)
	}
}
