package tests

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// An older copy of a data directory, as a snapshot of the machine has one, ends nobody who writes, and
// serves nothing beside them: it goes on once they have stopped.
func TestReplicaOfAnOlderCopy(t *testing.T) {
	t.Parallel()
	for name, newStore := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t)
			s, token := startShipping(t, store, "Copied")
			older, equal := s.another(copyDir(t, s.Dir)), s.another("")
			s.sendTitled("Not copied")
			s.awaitShipped(token)
			equal.Dir = copyDir(t, s.Dir)
			for copied, copy := range map[string]*server{"older": older, "equal": equal} {
				text, code := copy.runToEnd()
				if code == 0 || strings.Contains(text, "Server started") {
					t.Errorf("%s: it served: %s", copied, text)
				}
				wantText(t, text, "Looking for 35s", "another server, on ", "A copy of its data directory needs a REPLICA_URL of its own")
				if out, errs, ok := runOn(t, s.binary, copy.Dir, s.env, "restore"); ok || !strings.Contains(errs, "another server, on ") {
					t.Errorf("%s: it was restored: %s%s", copied, out, errs)
				}
			}
			s.sendTitled("After")
			s.awaitShipped(token)
			if state := s.replicaState(token); state.Epoch != 1 || state.Error != "" {
				t.Errorf("got %+v, want epoch 1", state)
			}

			s.Stop()
			older.Start()
			older.wantTitles([]string{"Copied", "Not copied", "After"})
			if text := older.output.String(); strings.Count(text, "Looking for") != 1 || strings.Contains(text, "may be missing") {
				t.Errorf("it looked for a server that had ended, or says that something may be missing: %s", text)
			}
			older.Kill()
			equal.args = []string{"--takeover"}
			equal.Start()
			equal.wantTitles([]string{"Copied", "Not copied", "After"})
			wantText(t, equal.output.String(), "in its last second may be missing")
		})
	}
}

// An older copy that served without REPLICA_URL, as to look at it, does not go on in place of what the
// replica has.
func TestReplicaOfAnOlderCopyThatServed(t *testing.T) {
	t.Parallel()
	store := newFolderStore(t)
	s, token := startShipping(t, store, "Copied")
	older := s.another(copyDir(t, s.Dir))
	s.sendTitled("Not copied")
	s.awaitShipped(token)
	s.Stop()
	older.serveUnshipped("Only here")
	older.Start()
	older.wantTitles([]string{"Copied", "Not copied"}, "Only here")
	wantText(t, older.output.String(), "records that only it has: aiContent 1")
}

// A server that ran without its replica for a while begins anew there, and need not look for who writes.
func TestReplicaBeginsAnewAtOnceAfterAKill(t *testing.T) {
	t.Parallel()
	store := newFolderStore(t)
	s, _ := startShipping(t, store, "First")
	s.Kill()
	env := s.env
	s.env = append(slices.Clone(env), "REPLICA_URL=") // what it writes then needs an epoch of its own
	s.Start()
	s.sendTitled("Second")
	if out, _ := s.runCommand("modelriver", "status"); strings.Contains(out, "replica") {
		t.Errorf("status of a server without a replica: %s", out)
	}
	s.Kill()
	s.env = env
	s.Start()
	s.sendTitled("Third")
	s.awaitShipped(s.SignIn("_superusers", testEmail, testPassword))
	if state := s.replicaState(s.SignIn("_superusers", testEmail, testPassword)); state.Epoch != 2 {
		t.Errorf("got %+v, want epoch 2", state)
	}
	if text := s.output.String(); strings.Contains(text, "Looking for") {
		t.Errorf("it looked for another server: %s", text)
	}
}

// copyDir returns a copy of a data directory, of which a server may run.
func copyDir(t testing.TB, dir string) string {
	t.Helper()
	copied := newDataDir(t, t.TempDir())
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return copied
}

// An older copy does not go on in an epoch that was begun with what it lacks, and that has nothing yet.
func TestReplicaOfAnOlderCopyWhileAnEpochIsEmpty(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, token := startShipping(t, store, "Copied")
	older := s.another(copyDir(t, s.Dir))
	s.sendTitled("Not copied")
	s.awaitShipped(token)
	s.Stop()
	s.serveUnshipped("Not shipped")
	s.beginEmptyEpoch(store)
	s.loseMachine()
	store.set(storeIsWell)
	older.args = []string{"--takeover"}
	older.Start()
	older.wantTitles([]string{"Copied", "Not copied"})
}

// An older copy that has written as much as it lacks, while the store was away, does not begin an epoch with that
// when it was served without the replica since.
func TestReplicaOfAnOlderCopyThatWroteMeanwhile(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, token := startShipping(t, store, "Copied")
	older := s.another(copyDir(t, s.Dir))
	s.sendTitled("Not copied")
	s.awaitShipped(token)
	s.loseMachine()
	store.set(storeCuts)
	older.Start()
	for i := range 10 {
		before := len(older.localFiles())
		older.sendTitled(fmt.Sprintf("Meanwhile %d", i))
		await(t, "it is read", func() bool { return len(older.localFiles()) > before })
	}
	older.Stop()
	older.serveUnshipped()
	store.set(storeIsWell)
	older.args = []string{"--takeover"}
	older.Start()
	older.wantTitles([]string{"Copied", "Not copied"})
}

// What a copy has acknowledged until an epoch that ends it begins, with what is here, is there.
func TestReplicaOfACopyThatWritesUntilItIsEnded(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, _ := startShipping(t, store, "Copied")
	s.Stop()
	copied := s.another(copyDir(t, s.Dir))
	copied.env = append(slices.Clone(s.env), "REPLICA_ACK=wait")
	s.serveUnshipped("Only here") // which begins an epoch, when it is shipped
	copied.Start()
	var begins atomic.Bool
	acknowledged := make(chan struct{})
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/epochs/") && begins.CompareAndSwap(false, true) {
			<-acknowledged
		}
		s3.ServeHTTP(w, r)
	})
	s.args = []string{"--takeover"}
	s.launch()
	await(t, "it begins", begins.Load)
	copied.sendTitled("Acknowledged")
	close(acknowledged)
	await(t, "it serves", s.serves)
	s.wantTitles([]string{"Copied", "Acknowledged"}, "Only here")
	wantText(t, s.output.String(), "records that only it has: aiContent 1")
	s.loseMachine()
	s.Start()
	s.wantTitles([]string{"Copied", "Acknowledged"})
}

// An older database beside newer notes in .replica does not begin an epoch: where the files of a copy are put
// over what is here, or made one by one while the server ran, or without the WAL.
func TestReplicaOfAnOlderDatabaseBesideNewerNotes(t *testing.T) {
	t.Parallel()
	for name, pass := range map[string]func(s *server, older string){
		"its WAL began anew since": func(s *server, older string) {
			db := openDatabase(t, s.Dir)
			defer db.Close()
			before, _ := walState(t, s.Dir)
			if _, err := db.NewQuery("CREATE TABLE large AS SELECT randomblob(45000000) AS content").Execute(); err != nil {
				t.Fatal(err)
			}
			await(t, "the WAL begins anew", func() bool {
				s.sendTitled("Large")
				after, _ := walState(t, s.Dir)
				return after != before
			})
		},
		"a command ended its WAL since": func(s *server, older string) {
			s.Stop()
			s.runCommand("modelriver", "status")
			s.Start()
		},
		"its WAL is not there": func(s *server, older string) {
			if err := os.Remove(filepath.Join(older, "data.db-wal")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, token := startShipping(t, newFolderStore(t), "Copied")
			older := copyDir(t, s.Dir)
			pass(s, older)
			s.sendTitled("Not copied")
			s.awaitShipped(token)
			s.Stop()
			for _, name := range []string{"data.db", "data.db-wal", "data.db-shm"} {
				if err := os.Remove(filepath.Join(s.Dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := exec.Command("cp", "-a", older+"/.", s.Dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			s.Start()
			s.wantTitles([]string{"Copied", "Not copied"})
			if dirs := s.asideDirs(); len(dirs) != 1 {
				t.Errorf("put aside: %v", dirs)
			}
		})
	}
}

func (s *server) localFiles() []string {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir, ".replica/ltx/0/*.ltx"))
	if err != nil {
		s.t.Fatal(err)
	}
	return files
}
