package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A database that something else begins where there was none is not taken for the one that was shipped.
func TestReplicaOfADatabaseBegunAnew(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(s *server){
		"by a command": func(s *server) {
			if out, ok := s.runCommand("superuser", "upsert", testEmail, testPassword); !ok {
				t.Fatal(out)
			}
		},
		"by a server without the replica": func(s *server) { s.serveUnshipped() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, token := startShipping(t, newFolderStore(t), "First", "Second")
			s.Stop()
			files, err := filepath.Glob(filepath.Join(s.Dir, "data.db*"))
			if err != nil || len(files) == 0 {
				t.Fatal(files, err)
			}
			for _, file := range files {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
			begin(s)
			s.Start()
			s.wantTitles([]string{"First", "Second"})
			s.sendTitled("Third")
			s.awaitShipped(token)
		})
	}
}

// Nor does a command begin one beside a server that waits for the store, which would serve that.
func TestReplicaCommandBesideAnEmptyMachine(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, _ := startShipping(t, store, "First")
	s.loseMachine()
	store.set(storeRefuses)
	s.args = []string{"--takeover"}
	s.launch()
	await(t, "it waits", func() bool { return strings.Contains(s.output.String(), "trying again.\n") })
	if out, errs, ok := runOn(t, s.binary, s.Dir, s.env, "superuser", "upsert", testEmail, testPassword); ok || !strings.Contains(out+errs, "it says what it waits for") {
		t.Errorf("superuser: %s%s", out, errs)
	}
	if _, err := os.Stat(filepath.Join(s.Dir, "data.db")); err == nil {
		t.Error("there is a database")
	}
	store.set(storeIsWell)
	await(t, "it serves", s.serves)
	s.wantTitles([]string{"First"})
}
