package tests

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/tools/archive"
	"golang.org/x/sys/unix"
)

var machinesLost = flag.Int("machines", 4, "how many machines TestReplicaOutlivesMachines and TestReplicaLosesTheLastMomentAtMost lose")

// What is answered 200 while 200 waits for the replica outlives the machine, under load, whenever
// it dies: the next one has the replica alone.
func TestReplicaOutlivesMachines(t *testing.T) {
	t.Parallel()
	for name, newStore := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t)
			f := newReplicaRun(t, t.TempDir(), rand.Uint64(), store, "REPLICA_ACK=wait")
			f.args = []string{"--takeover"} // nobody waits for the sign of a machine that is gone
			f.run(false, func() {
				f.await(200, 100)
				for n := range *machinesLost {
					store.set([]storeFault{storeIsWell, storeIsUnsteady}[n%2]) // of a bucket
					f.sleep(20*time.Millisecond, 2*time.Second)
					f.loseMachine()
					f.Start()
					f.await(200, 50)
				}
				store.set(storeIsWell)
			})
		})
	}
}

// Without that, what was committed when the replica last had all outlives the machine.
func TestReplicaLosesTheLastMomentAtMost(t *testing.T) {
	t.Parallel()
	for name, newStore := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, newDataDir(t, t.TempDir()), newStore(t).env...)
			token := s.Superuser()
			s.args = []string{"--takeover"}
			type answered struct {
				title string
				at    time.Time
			}
			all, lost := 0, 0
			var oldest []time.Duration // that was lost, of each machine, when that died
			for round := range *machinesLost {
				var sent []answered
				for end := time.Now().Add(time.Second + rand.N(2*time.Second)); time.Now().Before(end); {
					title := fmt.Sprintf("Round %d, %d", round, len(sent))
					s.sendTitled(title)
					sent = append(sent, answered{title, time.Now()})
				}
				shipped := s.replicaState(token).Shipped
				died, age := time.Now(), time.Duration(0)
				s.loseMachine()
				s.Start()
				titles := s.titleSet()
				for _, a := range sent {
					all++
					if titles[a.title] {
						continue
					}
					lost++
					age = max(age, died.Sub(a.at))
					if a.at.Before(shipped) {
						t.Errorf("%s is lost: answered at %s, the replica had all at %s", a.title, a.at, shipped)
					}
				}
				oldest = append(oldest, age)
				s.awaitShipped(token)
			}
			slices.Sort(oldest)
			t.Logf("%d of %d that were answered are lost; the oldest of each machine was answered this long before its end: median %s, at most %s",
				lost, all, oldest[len(oldest)/2], oldest[len(oldest)-1])
		})
	}
}

// A machine that comes back beside its successor, or after it, destroys nothing.
func TestReplicaOldMachineComesBack(t *testing.T) {
	t.Parallel()
	for name, newStore := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before, after, only := numbered("Before", 10), numbered("After", 20), numbered("Only here", 3)
			old := startServer(t, newDataDir(t, t.TempDir()), append(newStore(t).env, "REPLICA_ACK=wait")...)
			token := old.Superuser()
			old.sendTitled(before...)
			old.awaitShipped(token)

			// A successor takes over while the old one runs, which ends by itself.
			next := old.another(newDataDir(t, t.TempDir()))
			text, code := next.runToEnd()
			if code == 0 {
				t.Errorf("a second server started beside the first: %s", text)
			}
			wantText(t, text, "another server, on ", "--takeover")
			next.args = []string{"--takeover"}
			next.Start()
			next.wantTitles(before)
			next.sendTitled(after...)
			select {
			case <-old.exited:
			case <-time.After(patience):
				t.Fatal("the old server goes on")
			}
			wantText(t, old.output.String(), "another server has taken the replica over")

			// The old one does not start beside it, and is put aside once it is alone.
			text, code = old.runToEnd()
			if code == 0 {
				t.Errorf("the old server started beside its successor: %s", text)
			}
			wantText(t, text, "another server, on ")
			if out, _ := old.runCommand("modelriver", "status"); !strings.Contains(out, "the server did not start: another server, on ") {
				t.Errorf("status of the old server: %s", out)
			}
			next.wantTitles(slices.Concat(before, after))
			next.Stop()
			editBeside(t, old.Dir, only)
			old.Start()
			old.wantTitles(slices.Concat(before, after), only...)
			wantText(t, old.output.String(), "records that only it has: aiContent 3", "restored the database as of ")
			dirs := old.asideDirs()
			if len(dirs) != 1 {
				t.Fatalf("directories put aside: %v", dirs)
			}
			db := openDatabase(t, dirs[0])
			if n := countRows(t, db, "aiContent WHERE title LIKE 'Only here%'"); n != len(only) {
				t.Errorf("put aside: got %d of %d records", n, len(only))
			}
			old.sendTitled("And on")
		})
	}
}

// editBeside writes records into the database of a server that does not run.
func editBeside(t testing.TB, dir string, titles []string) {
	t.Helper()
	db := openDatabase(t, dir)
	defer db.Close()
	for _, title := range titles {
		_, err := db.NewQuery("INSERT INTO aiContent (id, title, metadata, data) VALUES (substr(hex(randomblob(8)), 1, 15), {:title}, '{}', '{}')").
			Bind(map[string]any{"title": title}).Execute()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The same data directory goes on at once after a kill, in the same epoch, without a whole copy.
func TestReplicaGoesOnAfterAKill(t *testing.T) {
	t.Parallel()
	s := startServer(t, newDataDir(t, t.TempDir()), newBucketStore(t).env...)
	token := s.Superuser()
	s.sendTitled("First")
	s.awaitShipped(token)
	for i := range 3 {
		if i == 2 {
			s.Stop()
			s.Start()
		} else {
			s.Restart()
		}
		s.sendTitled(fmt.Sprint("Again ", i))
		s.awaitShipped(token)
		if state := s.replicaState(token); state.Epoch != 1 || state.Error != "" {
			t.Errorf("got %+v, want epoch 1", state)
		}
	}
	if text := s.output.String(); strings.Contains(text, "Looking for") || strings.Contains(text, "restored") {
		t.Errorf("it looked for another server, or restored: %s", text)
	}
	s.args = []string{"--takeover"}
	s.loseMachine()
	s.Start()
	s.wantTitles([]string{"First", "Again 0", "Again 1", "Again 2"})
}

// While the store is away, nothing that is acknowledged is lost, and what can be read is.
func TestReplicaStoreIsAway(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]storeFault{
		"cuts connections": storeCuts, "cuts halfway": storeCutsHalfway, "fails": storeFails, "refuses": storeRefuses,
		"loses its answers": storeLosesAnswers, "is slow": storeIsSlow, "is unsteady": storeIsUnsteady,
	} {
		for _, ack := range []string{"async", "wait"} {
			t.Run("bucket that "+name+", "+ack, func(t *testing.T) {
				t.Parallel()
				store := newBucketStore(t)
				attackWithout(t, store, ack, name == "is slow" || name == "is unsteady",
					func() { store.set(fault) }, func() { store.set(storeIsWell) })
			})
		}
	}
	for _, ack := range []string{"async", "wait"} {
		t.Run("folder that is none, "+ack, func(t *testing.T) {
			t.Parallel()
			store := newFolderStore(t)
			folder := strings.TrimPrefix(store.env[0], "REPLICA_URL=file://")
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			exchange := func() {
				if err := unix.Renameat2(unix.AT_FDCWD, folder, unix.AT_FDCWD, file, unix.RENAME_EXCHANGE); err != nil {
					t.Fatal(err)
				}
			}
			attackWithout(t, store, ack, false, exchange, exchange)
		})
	}
}

// attackWithout loads a server from before its store goes away until after it is back. An old SQLite
// writes beside it: it finds the locks that keep it from deleting the WAL, though the store does not
// answer.
func attackWithout(t *testing.T, store *replicaStore, ack string, answers bool, goAway, comeBack func()) {
	f := newReplicaRun(t, t.TempDir(), rand.Uint64(), store, "REPLICA_ACK="+ack)
	f.run(false, func() {
		f.await(200, 50)
		f.awaitShipped(f.token)
		goAway()
		if ack == "async" {
			f.await(200, 50)
		} else if !answers {
			f.await(503, connections)
		}
		f.writeWithOldSQLite()
		f.titleSet()
		f.Restart() // and it does not answer from the start on
		for range 4 {
			f.writeWithOldSQLite()
			f.titleSet()
			if ack == "async" {
				f.await(200, 50)
			}
		}
		comeBack()
		f.await(200, 50)
		f.awaitShipped(f.token)
		if ack == "wait" {
			f.args = []string{"--takeover"}
			f.loseMachine()
			f.Start()
			f.await(200, 50)
		}
	})
}

// writeWithOldSQLite has an old SQLite open the server's database, write, and close it.
func (f *faultRun) writeWithOldSQLite() {
	f.t.Helper()
	out, err := exec.Command("python3", "-c", `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=20)
db.execute("CREATE TABLE IF NOT EXISTS beside (n)")
db.execute("INSERT INTO beside VALUES (1)")
db.commit()
db.close()`, filepath.Join(f.Dir, "data.db")).CombinedOutput()
	if err != nil {
		f.t.Fatalf("python3: %v\n%s", err, out)
	}
}

// Servers on copies of one data directory, where none sees the other's sign of life, are noticed: one
// ends, and no transaction of the other is overwritten.
func TestReplicaOfACopiedDirectory(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s := startServer(t, newDataDir(t, t.TempDir()), append(store.env, "REPLICA_ACK=wait")...)
	s.sendTitled("First")
	s.Stop()
	copied := copyDir(t, s.Dir)
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/alive.json") {
			http.Error(w, "<Error><Code>NoSuchKey</Code></Error>", http.StatusNotFound)
			return
		}
		s3.ServeHTTP(w, r)
	})
	s.Start()
	copy := s.another(copied)
	copy.Start()
	acknowledged := map[*server][]string{}
	for i := 0; ; i++ {
		running := 0
		for _, server := range []*server{s, copy} {
			select {
			case <-server.exited:
				continue
			default:
				running++
			}
			title := fmt.Sprintf("%s %d", server.URL, i)
			if server.Send(payload("channel-"+title, title, "")) == http.StatusOK {
				acknowledged[server] = append(acknowledged[server], title)
			}
		}
		if running < 2 && i > 10 {
			break
		}
		if i > 1000 {
			t.Fatal("both go on")
		}
	}
	s.Kill()
	copy.Kill()
	next := s.another(newDataDir(t, t.TempDir()))
	next.args = []string{"--takeover"}
	next.Start()
	next.wantTitles(slices.Concat(slices.Collect(maps.Values(acknowledged))...))
}

// A database that was never shipped is not mixed with a replica that holds another.
func TestReplicaOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	store := newFolderStore(t)
	s := startServer(t, newDataDir(t, t.TempDir()), store.env...)
	token := s.Superuser()
	s.sendTitled("First")
	s.awaitShipped(token)

	other := startServer(t, newDataDir(t, t.TempDir()))
	other.sendTitled("Other")
	other.Stop()
	other.env = s.env
	text, code := other.runToEnd()
	if code != 1 {
		t.Errorf("exit status: got %d, want 1", code)
	}
	wantText(t, text, "holds a database already", "was never shipped there", "move "+filepath.Join(other.Dir, "data.db")+" away", "empty place")
	if err := os.Rename(filepath.Join(other.Dir, "data.db"), filepath.Join(other.Dir, "mine.db")); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	other.Start()
	other.wantTitles([]string{"First"}, "Other")
}

// A folder that would be lost with the data, or copied with them, is refused.
func TestReplicaFolderIsApart(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir := filepath.Join(base, "pb_data")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(base, link); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{dir, filepath.Join(dir, "replica"), base, filepath.Join(link, "pb_data", "some", "folder")} {
		out, errs, ok := runOn(t, buildBinary(t), dir, []string{"REPLICA_URL=file://" + folder}, "serve", "--http", "127.0.0.1:0")
		if ok {
			t.Errorf("%s: serve started: %s", folder, out)
		}
		wantText(t, errs, "REPLICA_URL: the folder "+folder+" and the data directory "+dir+" are not apart")
		if _, err := os.Stat(filepath.Join(dir, "data.db")); err == nil {
			t.Errorf("%s: a database was made", folder)
		}
	}
}

// A folder that is not there is made, and that is said: it may be of a disk that is not mounted.
func TestReplicaFolderIsMade(t *testing.T) {
	t.Parallel()
	store := newFolderStore(t)
	folder := strings.TrimPrefix(store.env[0], "REPLICA_URL=file://")
	s := startServer(t, newDataDir(t, t.TempDir()))
	s.env = append(s.env, store.env...)
	if out, ok := s.runCommand("modelriver", "doctor", "--url", s.URL+"/webhooks/modelriver"); ok {
		t.Errorf("the doctor found no problem: %s", out)
	} else {
		wantText(t, out, "problem  replica", "there is no folder "+folder+": is its disk mounted?")
	}
	said := "Replica: created " + folder + ", which was not there: is its disk mounted?\n"
	s.Restart()
	wantText(t, s.output.String(), said)
	s.awaitShipped(s.Superuser())
	s.Restart()
	if n := strings.Count(s.output.String(), said); n != 1 {
		t.Errorf("it is said %d times", n)
	}
}

// A place that was emptied, as the folder of a disk that is not mounted, does not pass for a new one.
func TestReplicaThatWasEmptied(t *testing.T) {
	t.Parallel()
	store := newFolderStore(t)
	s := startServer(t, newDataDir(t, t.TempDir()), store.env...)
	s.awaitShipped(s.Superuser())
	s.Stop()
	folder := strings.TrimPrefix(store.env[0], "REPLICA_URL=file://")
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	for _, spelled := range []string{folder, folder + "/", "/." + folder} {
		again := s.another(s.Dir)
		again.env = append(again.env, "REPLICA_URL=file://"+spelled)
		text, code := again.runToEnd()
		if code != 1 {
			t.Errorf("%s: exit status: got %d, want 1", spelled, code)
		}
		wantText(t, text, "is empty, though the database here was shipped to it", "mount it", "delete "+filepath.Join(s.Dir, ".replica"))
	}
	if err := os.RemoveAll(filepath.Join(s.Dir, ".replica")); err != nil {
		t.Fatal(err)
	}
	s.Start()
	s.awaitShipped(s.SignIn("_superusers", testEmail, testPassword))
}

// PocketBase's own backups leave the replica's files out, and what is restored from one is shipped
// from then on.
func TestReplicaAndBackups(t *testing.T) {
	t.Parallel()
	s := startServer(t, newDataDir(t, t.TempDir()), append(newFolderStore(t).env, "REPLICA_ACK=wait")...)
	token := s.Superuser()
	s.sendTitled("First")
	writeBeside(t, s.Dir, "pb_data/.replica-verify/data.db", "what a restore --verify restores meanwhile")
	s.API(token, http.MethodPost, "/api/backups", map[string]string{"name": "backup.zip"}, nil)
	dir := t.TempDir()
	if err := archive.Extract(filepath.Join(s.Dir, "backups", "backup.zip"), dir); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(path, ".replica") {
			t.Errorf("the backup has %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.sendTitled("Second")
	epoch := s.replicaState(token).Epoch
	s.API(token, http.MethodPost, "/api/backups/backup.zip/restore", nil, nil)
	await(t, "the backup is restored", func() bool {
		response, err := http.Get(s.URL + "/api/collections/aiContent/records?filter=" + url.QueryEscape(`title = "Second"`))
		if err != nil {
			return false // it starts again
		}
		defer response.Body.Close()
		var list struct{ TotalItems *int }
		return json.NewDecoder(response.Body).Decode(&list) == nil && list.TotalItems != nil && *list.TotalItems == 0
	})
	s.sendTitled("Third")
	if state := s.replicaState(token); state.Epoch != epoch+1 {
		t.Errorf("epoch: got %d, want %d", state.Epoch, epoch+1)
	}
	s.args = []string{"--takeover"}
	s.loseMachine()
	s.Start()
	s.wantTitles([]string{"First", "Third"}, "Second")
}

// The nightly maintenance holds up no webhook.
func TestReplicaAndMaintenance(t *testing.T) {
	t.Parallel()
	for name, newStore := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newReplicaRun(t, t.TempDir(), rand.Uint64(), newStore(t))
			f.run(false, func() {
				f.await(200, 50)
				for range 3 {
					f.API(f.token, http.MethodPost, "/api/crons/__pbDBOptimize__", nil, nil)
					f.await(200, 50)
				}
				if n := f.count(503); n > 0 {
					t.Errorf("%d webhooks were answered 503", n)
				}
			})
		})
	}
}

func TestRestoreCommand(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	callbacks, _ := receivePosts(t, http.StatusServiceUnavailable)
	s := startServer(t, newDataDir(t, t.TempDir()), store.env...)
	token := s.Superuser()
	s.mustSend(userPayload("c", "First", "Body", "", callbacks))
	s.awaitShipped(token)
	time.Sleep(2 * time.Second) // moments are told to the second, and shipped once in one
	moment := time.Now().UTC()
	time.Sleep(2 * time.Second)
	s.sendTitled("Second")
	s.awaitShipped(token)

	restore := func(args ...string) (string, string, bool) {
		return runOn(t, s.binary, s.Dir, s.env, append([]string{"restore"}, args...)...)
	}
	out, errs, ok := restore("--dry-run")
	if !ok || errs != "" {
		t.Errorf("--dry-run: %s%s", out, errs)
	}
	wantText(t, out, "/some/path", "has the database as of ")
	match := regexp.MustCompile(`any moment since (\S+)\.\n`).FindStringSubmatch(out)
	if match == nil {
		t.Fatalf("--dry-run does not tell since when: %s", out)
	}
	if out, errs, ok = restore("--verify", "--to", match[1]); !ok {
		t.Errorf("--verify --to the first moment: %s%s", out, errs)
	}
	out, errs, ok = restore("--verify")
	if !ok || errs != "" {
		t.Errorf("--verify: %s%s", out, errs)
	}
	wantText(t, out, "aiContent 2", "The replica is whole")
	status, _ := s.runCommand("modelriver", "status")
	wantText(t, status, "replica", "epoch 1", "verified ")
	out, errs, ok = restore()
	if ok || out != "" {
		t.Errorf("restore beside the server: %s", out)
	}
	wantText(t, errs, "a server runs on "+s.Dir)
	if _, errs, ok = restore("--to", "yesterday"); ok {
		t.Error("--to yesterday succeeded")
	}
	wantText(t, errs, `--to "yesterday"`, "2026-01-31 14:05:00")
	if _, errs, ok = restore("--to", "2020-01-01 00:00"); ok {
		t.Error("a moment before the replica was restored")
	}
	wantText(t, errs, "the replica has nothing of 2020-01-01T00:00:00Z or before")
	copied := t.TempDir()
	if out, errs, ok = restore("--into", copied, "--to", moment.Format(time.DateTime)); !ok {
		t.Errorf("--into: %s%s", out, errs)
	}
	wantText(t, out, "aiContent 1", "1 callback waited at that moment")
	if n := countRows(t, openDatabase(t, copied), "aiContent"); n != 1 {
		t.Errorf("--to: got %d records, want 1", n)
	}

	s.Stop()
	if out, errs, ok = restore("--to", moment.Format(time.RFC3339)); !ok {
		t.Errorf("restore: %s%s", out, errs)
	}
	wantText(t, out, "records that only it has: aiContent 1", "The next start of the server goes on from there")
	s.Start()
	s.wantTitles([]string{"First"}, "Second")
	wantText(t, s.output.String(), "1 callback waited at that moment")
	s.sendTitled("Third")
	s.awaitShipped(token)
	s.args = []string{"--takeover"}
	s.loseMachine()
	s.Start()
	s.wantTitles([]string{"First", "Third"}, "Second")

	none, errs, ok := runOn(t, s.binary, t.TempDir(), nil, "restore")
	if ok || none != "" {
		t.Errorf("without REPLICA_URL: %s", none)
	}
	wantText(t, errs, "set REPLICA_URL")
}

// A request that waited at the moment that was restored may have been sent after it.
func TestReplicaAsksNothingTwice(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(s *server){
		"by the start itself": func(s *server) {
			s.args = []string{"--takeover"}
			s.Start()
		},
		"by hand, and served without the replica": func(s *server) {
			if out, errs, ok := runOn(t, s.binary, s.Dir, s.env, "restore", "--takeover"); !ok {
				t.Fatalf("restore: %s%s", out, errs)
			}
			s.env = append(slices.Clone(s.env), "REPLICA_URL=")
			s.Start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, newDataDir(t, t.TempDir()), append(newFolderStore(t).env, "MODELRIVER_API_URL="+closedPort(t))...)
			token := s.Superuser()
			var request struct{ ID string }
			s.API(token, http.MethodPost, "/api/collections/aiRequests/records", map[string]any{"workflow": "w", "input": map[string]any{}}, &request)
			s.awaitShipped(token)
			s.loseMachine()
			start(s)
			wantText(t, s.output.String(), "1 request waited at that moment")
			await(t, "the request has failed", func() bool {
				var row struct{ State, Error string }
				s.API(token, http.MethodGet, "/api/collections/aiRequests/records/"+request.ID, nil, &row)
				return row.State == "failed" && row.Error != ""
			})
		})
	}
}

// An empty machine whose store refuses it says why, and goes on once that is mended.
func TestReplicaRefusesAnEmptyMachine(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, _ := startShipping(t, store, "First")
	s.loseMachine()
	store.set(storeRefuses)
	s.args = []string{"--takeover"}
	s.launch()
	await(t, "the refusal is said", func() bool { return strings.Contains(s.output.String(), "trying again.\n") })
	wantText(t, s.output.String(), "the replica's cannot be restored: the store refuses these credentials (AccessDenied): set AWS_ACCESS_KEY_ID")
	store.set(storeIsWell)
	await(t, "it serves", func() bool {
		response, err := http.Get(s.URL + "/api/health")
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	})
	s.wantTitles([]string{"First"})
}

func TestDoctorTriesTheReplica(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s := startServer(t, newDataDir(t, t.TempDir()), store.env...)
	s.env = append(s.env, "AWS_CA_BUNDLE=/etc/ssl/some.pem")
	out, _ := s.runCommand("modelriver", "doctor", "--url", s.URL+"/webhooks/modelriver")
	wantText(t, out, "ok       replica", "an object was written, read and deleted", "AWS_CA_BUNDLE is set, and is not read")
	store.set(storeRefuses)
	out, ok := s.runCommand("modelriver", "doctor", "--url", s.URL+"/webhooks/modelriver")
	if ok {
		t.Error("the doctor found no problem")
	}
	wantText(t, out, "problem  replica", "the store refuses these credentials")
}

func TestReplicaSettings(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, env, want string }{
		{"another scheme", "REPLICA_URL=ftp://host/path", `its scheme is "ftp"`},
		{"a relative folder", "REPLICA_URL=file://folder", "use the absolute path of a folder"},
		{"no bucket", "REPLICA_URL=s3:///path", "it names no bucket"},
		{"a secret", "REPLICA_URL=s3://key:secret@bucket/path", "it has credentials in it"},
		{"an unknown parameter", "REPLICA_URL=s3://bucket/path?acl=public", `it has a parameter "acl"`},
		{"no such acknowledgement", "REPLICA_ACK=maybe", `REPLICA_ACK "maybe": use async or wait`},
		{"nothing to wait for", "REPLICA_ACK=wait", "wait needs REPLICA_URL"},
		{"no duration", "REPLICA_RETENTION=7d", `REPLICA_RETENTION "7d"`},
		{"no retention", "REPLICA_RETENTION=0", `REPLICA_RETENTION "0"`},
		{"less than a day", "REPLICA_RETENTION=23h", "REPLICA_RETENTION 23h0m0s: use a day at least"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "pb_data")
			out, errs, ok := runOn(t, buildBinary(t), dir, []string{row.env}, "serve", "--http", "127.0.0.1:0")
			if ok {
				t.Errorf("serve started: %s", out)
			}
			wantText(t, errs, row.want)
			if strings.HasPrefix(row.env, "REPLICA_URL=") {
				out, why, ok := runOn(t, buildBinary(t), dir, []string{row.env}, "restore")
				if ok {
					t.Errorf("it was restored: %s", out)
				}
				wantText(t, why, row.want)
				errs += why
			}
			if strings.Contains(errs, "secret@") {
				t.Errorf("the secret is told: %s", errs)
			}
			if _, err := os.Stat(filepath.Join(dir, "data.db")); err == nil {
				t.Error("a database was made")
			}
		})
	}
}
