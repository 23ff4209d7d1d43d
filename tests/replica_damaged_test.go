package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A moment that cannot be restored changes nothing: the server goes on with the database that is here.
func TestRestoreToADamagedMoment(t *testing.T) {
	t.Parallel()
	store := newFolderStore(t)
	s, token := startShipping(t, store, "First", "Second")
	s.Stop()
	files, err := filepath.Glob(filepath.Join(strings.TrimPrefix(store.env[0], "REPLICA_URL=file://"), "0000000001/0/*.ltx"))
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[0], 4096); err != nil {
		t.Fatal(err)
	}
	out, errs, ok := runOn(t, s.binary, s.Dir, s.env, "restore", "--to", time.Now().UTC().Format(time.RFC3339))
	if ok {
		t.Fatalf("it was restored: %s%s", out, errs)
	}
	wantText(t, errs, "restore --verify --to")
	s.Start()
	s.wantTitles([]string{"First", "Second"})
	s.sendTitled("Third")
	s.awaitShipped(token)
	if state := s.replicaState(token); state.Epoch != 1 {
		t.Errorf("got %+v, want epoch 1", state)
	}
}

// A database of no bytes, as a file system may leave one, is none: the replica's is restored.
func TestReplicaOfAnEmptyFile(t *testing.T) {
	t.Parallel()
	s, token := startShipping(t, newFolderStore(t), "First", "Second")
	s.Kill()
	if err := os.Truncate(filepath.Join(s.Dir, "data.db"), 0); err != nil {
		t.Fatal(err)
	}
	s.Start()
	s.wantTitles([]string{"First", "Second"})
	s.sendTitled("Third")
	s.awaitShipped(token)
}

// A sign of life that cannot be read, as a crash of the store may leave one, is looked at for a while, and
// does not keep a server from shipping.
func TestReplicaOfASignThatIsDamaged(t *testing.T) {
	t.Parallel()
	store := newFolderStore(t)
	s, token := startShipping(t, store, "First")
	s.Stop()
	if err := os.Truncate(filepath.Join(strings.TrimPrefix(store.env[0], "REPLICA_URL=file://"), "alive.json"), 0); err != nil {
		t.Fatal(err)
	}
	s.Start()
	s.sendTitled("Second")
	s.awaitShipped(token)
	wantText(t, s.output.String(), "Looking for 35s")
}

// What else a crash of the store may damage needs a hand, and what waits for it says which.
func TestReplicaSaysWhatToDoAboutDamage(t *testing.T) {
	t.Parallel()
	for name, mend := range map[string]func(path, said string) error{
		"replica.json": func(path, said string) error {
			if !strings.Contains(said, "delete it") {
				return nil
			}
			return os.Remove(path)
		},
		"epochs/0000000001.json": func(path, said string) error {
			return os.WriteFile(path, []byte(regexp.MustCompile(`\{.*\}`).FindString(said)), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newFolderStore(t)
			s, _ := startShipping(t, store, "First")
			path := filepath.Join(strings.TrimPrefix(store.env[0], "REPLICA_URL=file://"), name)
			s.loseMachine()
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			s.args = []string{"--takeover"}
			s.launch()
			await(t, "it waits", func() bool { return strings.Contains(s.output.String(), "trying again.\n") })
			if err := mend(path, s.output.String()); err != nil {
				t.Fatal(err)
			}
			await(t, "it serves", s.serves)
			s.wantTitles([]string{"First"})
		})
	}
}
