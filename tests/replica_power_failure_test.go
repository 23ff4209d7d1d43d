package tests

import (
	"os"
	"path/filepath"
	"testing"
)

// A power failure that takes the end of the WAL while the store is away takes no more than that: what
// waited for the store is not put aside for what that had before.
func TestReplicaPowerFailsWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, _ := startShipping(t, store, "Before")
	store.set(storeCuts)
	last := func() string {
		files, err := filepath.Glob(filepath.Join(s.Dir, ".replica/ltx/0/*.ltx"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		return files[len(files)-1]
	}
	waits := numbered("Waits", 3)
	for _, title := range append(waits, "Lost") {
		before := last()
		s.sendTitled(title)
		await(t, "it waits for the store", func() bool { return last() != before })
	}
	s.Kill()
	wal := filepath.Join(s.Dir, "data.db-wal")
	info, err := os.Stat(wal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(wal, info.Size()-100); err != nil {
		t.Fatal(err)
	}
	store.set(storeIsWell)
	s.Start()
	s.wantTitles(append(waits, "Before"), "Lost")
	wantText(t, s.output.String(), "the end of the WAL is lost")
	s.sendTitled("After")
	s.awaitShipped(s.SignIn("_superusers", testEmail, testPassword))
	s.args = []string{"--takeover"}
	s.loseMachine()
	s.Start()
	s.wantTitles(append(waits, "Before", "After"))
}

// A WAL whose header a power failure took keeps no server from starting: SQLite takes it for an empty one.
func TestReplicaPowerFailsWhileAWALBegins(t *testing.T) {
	t.Parallel()
	s, token := startShipping(t, newBucketStore(t), "Before")
	s.Stop()
	db := openDatabase(t, s.Dir)
	if _, err := db.NewQuery("PRAGMA wal_checkpoint(TRUNCATE)").Execute(); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if err := os.WriteFile(filepath.Join(s.Dir, "data.db-wal"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start()
	s.sendTitled("After")
	s.awaitShipped(token)
	s.args = []string{"--takeover"}
	s.loseMachine()
	s.Start()
	s.wantTitles([]string{"Before", "After"})
}

// A file of what was read that is damaged or missing keeps no server from starting, or from shipping: all is
// shipped anew.
func TestReplicaWhatWasReadIsDamaged(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(files []string) error{
		"the last is empty":     func(files []string) error { return os.Truncate(files[len(files)-1], 0) },
		"one before is missing": func(files []string) error { return os.Remove(files[len(files)-2]) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newBucketStore(t)
			s, token := startShipping(t, store, "Before")
			files := func() []string {
				files, err := filepath.Glob(filepath.Join(s.Dir, ".replica/ltx/0/*.ltx"))
				if err != nil {
					t.Fatal(err)
				}
				return files
			}
			store.set(storeCuts)
			waits := numbered("Waits", 3)
			for _, title := range waits {
				before := len(files())
				s.sendTitled(title)
				await(t, "it waits for the store", func() bool { return len(files()) > before })
			}
			s.Kill()
			if err := damage(files()); err != nil {
				t.Fatal(err)
			}
			store.set(storeIsWell)
			s.Start()
			s.sendTitled("After")
			s.awaitShipped(token)
			if state := s.replicaState(token); state.Epoch != 2 {
				t.Errorf("got %+v, want epoch 2", state)
			}
			s.args = []string{"--takeover"}
			s.loseMachine()
			s.Start()
			s.wantTitles(append(waits, "Before", "After"))
		})
	}
}

// What a power failure took of the WAL, and the replica has, is not forgotten when something else than a
// server with the replica comes first.
func TestReplicaPowerFailsBeforeSomethingElse(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(s *server){
		"a command":                    func(s *server) { s.runCommand("modelriver", "status") },
		"a server without the replica": func(s *server) { s.serveUnshipped() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, token := startShipping(t, newFolderStore(t), "Before")
			s.sendTitled("Lost here")
			s.awaitShipped(token)
			s.Kill()
			wal := filepath.Join(s.Dir, "data.db-wal")
			info, err := os.Stat(wal)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(wal, info.Size()-100); err != nil {
				t.Fatal(err)
			}
			first(s)
			s.args = []string{"--takeover"}
			s.Start()
			s.wantTitles([]string{"Before", "Lost here"})
		})
	}
}
