package recovery

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/superfly/ltx"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// A line is an app that ships to a folder, and restores from it.
type line struct {
	*Recovery
	t    *testing.T
	app  core.App
	rows int
}

func newLine(t *testing.T) *line {
	t.Helper()
	app := apptest.NewApp(t)
	r, err := New(app, nil, Options{URL: "file://" + filepath.Join(t.TempDir(), "replica"), Ack: AckWait, Retention: 7 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	r.exit = func(int) { t.Error("the process was ended") }
	l := &line{Recovery: r, t: t, app: app}
	l.must(r.prepare(t.Context()))
	l.exec("CREATE TABLE rows (n INTEGER, text TEXT)")
	l.must(r.ship(t.Context()))
	t.Cleanup(func() { _ = r.shipping.db.Close(context.Background()) })
	return l
}

func (l *line) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *line) exec(query string) {
	l.t.Helper()
	_, err := l.app.NonconcurrentDB().NewQuery(query).Execute()
	l.must(err)
}

// write commits a row and ships it.
func (l *line) write() {
	l.t.Helper()
	l.rows++
	l.exec(fmt.Sprintf("INSERT INTO rows VALUES (%d, '%s')", l.rows, strings.Repeat("x", 500)))
	l.must(l.ship(l.t.Context()))
}

// restored returns how many rows the replica has, at a time if that is not zero.
func (l *line) restored(to time.Time) (rows int) {
	l.t.Helper()
	epochs, err := readEpochs(l.t.Context(), l.bucket)
	l.must(err)
	from, err := findSource(l.t.Context(), l.bucket, epochs, to)
	l.must(err)
	path := filepath.Join(l.t.TempDir(), "data.db")
	l.must(from.restore(l.t.Context(), path, nil))
	l.must(withDB(path, func(db *dbx.DB) error { return db.NewQuery("SELECT COUNT(*) FROM rows").Row(&rows) }))
	return rows
}

// age makes all that is in the replica older.
func (l *line) age(by time.Duration) {
	l.t.Helper()
	l.must(filepath.WalkDir(string(l.bucket.(folder)), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return os.Chtimes(path, time.Time{}, info.ModTime().Add(-by))
	}))
}

// ageEpoch has the epoch begun before now.
func (l *line) ageEpoch(by time.Duration) {
	l.t.Helper()
	e := *l.client.epoch.Load()
	e.Started = time.Now().Add(-by)
	content, err := json.Marshal(e)
	l.must(err)
	l.must(l.bucket.Put(l.t.Context(), epochKey(e.Number), bytes.NewReader(content), int64(len(content)), false))
	l.client.begin(e)
	l.shipping.keep.client.begin(e)
}

func (l *line) files(level int) int {
	l.t.Helper()
	files, err := l.bucket.List(l.t.Context(), l.client.levelDir(level), "")
	l.must(err)
	return len(files)
}

// Whatever is put together and deleted, the newest state can be restored, and the server goes on.
func TestKeeperKeepsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	keep := func(level int) {
		t.Helper()
		l.must(l.shipping.keep.keep(t.Context(), level))
	}
	check := func(what string) {
		t.Helper()
		if got := l.restored(time.Time{}); got != l.rows {
			t.Fatalf("%s: restored %d rows, want %d", what, got, l.rows)
		}
		if goesOn, err := l.local.goesOn(t.Context(), l.client); !goesOn || err != nil {
			t.Fatalf("%s: goes on: %t, %v", what, goesOn, err)
		}
	}
	for day := range 10 {
		for range 3 {
			for range 5 {
				l.write()
			}
			keep(1)
			check("seconds put together")
			l.age(6 * time.Minute)
			keep(secondsLevel)
			check("seconds forgotten")
			if n := l.files(secondsLevel); n > 11 { // those of the last minutes, and one more
				t.Fatalf("%d files of seconds are left", n)
			}
			keep(2)
			check("minutes put together")
		}
		keep(3)
		check("hours put together")
		l.age(24 * time.Hour)
		l.ageEpoch(time.Duration(day+1) * 24 * time.Hour)
		l.write()
		keep(litestream.SnapshotLevel)
		check("a day was copied")
	}
	if n := l.files(litestream.SnapshotLevel); n < 7 || n > 9 {
		t.Errorf("%d whole copies are kept, want those of about 8 days", n)
	}
	if n := l.files(1); n > 30 {
		t.Errorf("%d files of level 1 are kept of 30", n)
	}
}

// Each moment that was shipped can be restored.
func TestMomentsAreRestored(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	moments := map[int]time.Time{}
	for range 5 {
		l.write()
		time.Sleep(20 * time.Millisecond) // moments are told apart by milliseconds
		moments[l.rows] = time.Now()
		time.Sleep(20 * time.Millisecond)
	}
	for rows, moment := range moments {
		if got := l.restored(moment); got != rows {
			t.Errorf("at %s: got %d rows, want %d", moment, got, rows)
		}
	}
	epochs, err := readEpochs(t.Context(), l.bucket)
	l.must(err)
	if _, err := findSource(t.Context(), l.bucket, epochs, time.Now().Add(-time.Hour)); err == nil {
		t.Error("a moment before the replica was found")
	}
}

// What is damaged is not restored, and what was shipped before it is: the error says so.
func TestDamageNamesTheWayOut(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"missing":   os.Remove,
		"cut off":   func(path string) error { return os.Truncate(path, 50) },
		"scrambled": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 5000), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t)
			l.write()
			time.Sleep(20 * time.Millisecond)
			moment, rows := time.Now(), l.rows
			time.Sleep(20 * time.Millisecond)
			l.write()
			key := l.client.key(secondsLevel, mustLast(l), mustLast(l))
			l.write()
			l.must(damage(filepath.Join(string(l.bucket.(folder)), key)))
			epochs, err := readEpochs(t.Context(), l.bucket)
			l.must(err)
			from, err := findSource(t.Context(), l.bucket, epochs, time.Time{})
			if err == nil {
				err = from.restore(t.Context(), filepath.Join(t.TempDir(), "data.db"), nil)
			}
			if err == nil || !strings.Contains(err.Error(), "restore --verify --to an earlier moment") {
				t.Errorf("got %v", err)
			}
			if got := l.restored(moment); got != rows {
				t.Errorf("before the damage: got %d rows, want %d", got, rows)
			}
		})
	}
}

// What waits for a store that is away is bounded: a new epoch begins with all of the database.
func TestTooMuchIsGivenUp(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	for range 5 {
		l.write()
	}
	first := l.client.epoch.Load().Number
	l.client.begin(epoch{})
	l.shipping.keep = nil
	l.must(l.readAnew(t.Context(), l.shipping))
	l.write()
	if got := l.client.epoch.Load().Number; got != first+1 {
		t.Errorf("epoch: got %d, want %d", got, first+1)
	}
	l.write()
	if got := l.restored(time.Time{}); got != l.rows {
		t.Errorf("restored %d rows, want %d", got, l.rows)
	}
	id, err := l.local.readIdentity()
	if err != nil || id.Replaced || id.Epoch != first+1 {
		t.Errorf("identity: got %+v, %v", id, err)
	}
}

// Nor is it while the keeper works: what that reads and deletes here by its names would be the next epoch's.
func TestTooMuchIsNotGivenUpWhileTheKeeperWorks(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.write()
	large := filepath.Join(l.local.ltxDir(), "large")
	l.must(os.WriteFile(large, nil, 0o600))
	l.must(os.Truncate(large, minUnshipped+1)) // a sparse file
	givesUp := func() bool {
		l.shipping.measured = time.Time{}
		l.must(l.boundUnshipped(t.Context(), l.shipping))
		_, err := os.Stat(large)
		return err != nil
	}
	working := l.shipping.keep.working
	working <- struct{}{}
	if givesUp() {
		t.Error("it was given up")
	}
	<-working
	if !givesUp() {
		t.Error("it was not given up")
	}
}

// Another owner's epoch ends this one's: nothing more is taken for shipped.
func TestOwnerIsFenced(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.write()
	if _, err := beginEpoch(t.Context(), l.bucket, l.client.epoch.Load().Number+1, "another", nil); err != nil {
		t.Fatal(err)
	}
	l.exec("INSERT INTO rows VALUES (0, 'late')")
	if err := l.ship(t.Context()); err == nil || !l.client.over.Load() {
		t.Errorf("shipped after another server began: %v", err)
	}
	if f, err := l.look(t.Context()); err != nil || f.next != takeOver || f.owned {
		t.Errorf("at the next start: got %+v, %v", f, err)
	}
}

// Of two databases that were never shipped and begin in one place at once, the one that comes second is refused:
// nobody can tell which is meant.
func TestOneOfTwoBegins(t *testing.T) {
	t.Parallel()
	place := "file://" + filepath.Join(t.TempDir(), "replica")
	var servers [2]*Recovery
	var found [2]findings
	for i := range servers {
		app := apptest.NewApp(t)
		users, err := app.FindCollectionByNameOrId("users")
		if err != nil {
			t.Fatal(err)
		}
		user := core.NewRecord(users)
		user.SetEmail("a@example.com")
		user.SetPassword("1234567890")
		if err := app.Save(user); err != nil {
			t.Fatal(err)
		}
		r, err := New(app, nil, Options{URL: place, Ack: AckWait, Retention: 7 * 24 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if found[i], err = r.look(t.Context()); err != nil || found[i].next != beginHere {
			t.Fatalf("before: got %+v, %v", found[i], err)
		}
		servers[i] = r
	}
	if err := servers[0].act(t.Context(), found[0]); err != nil {
		t.Fatal(err)
	}
	if err := servers[1].act(t.Context(), found[1]); err == nil {
		t.Error("both began")
	}
	if f, err := servers[1].look(t.Context()); !isRefusal(err) {
		t.Errorf("the second: got %+v, %v", f, err)
	}
}

// What an earlier version noted of a database that was replaced is enough to begin with that.
func TestReplacedByAnEarlierVersion(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.write()
	id, err := l.local.readIdentity()
	l.must(err)
	id.Replaced, id.Last = true, mustLast(l)
	l.must(l.local.writeIdentity(id))
	if f, err := l.look(t.Context()); err != nil || f.next != beginHere {
		t.Errorf("got %+v, %v", f, err)
	}
	id.Last--
	l.must(l.local.writeIdentity(id))
	if f, err := l.look(t.Context()); err != nil || f.next != takeOver {
		t.Errorf("where the replica went on: got %+v, %v", f, err)
	}
}

// A database that is behind its replica, or went another way, does not go on.
func TestOtherLinesDoNotGoOn(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(l *line){
		"behind":                            func(l *line) { l.must(os.Remove(l.local.ltxPath(mustLast(l)))) },
		"nothing is known of what was read": func(l *line) { l.must(os.RemoveAll(l.local.ltxDir())) },
		"another transaction of that number": func(l *line) {
			last := mustLast(l)
			other, err := os.ReadFile(l.local.ltxPath(last - 1))
			l.must(err)
			l.must(os.WriteFile(l.local.ltxPath(last), other, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t)
			for range 3 {
				l.write()
			}
			if goesOn, err := l.local.goesOn(t.Context(), l.client); !goesOn || err != nil {
				t.Fatalf("before: got %t, %v", goesOn, err)
			}
			change(l)
			if goesOn, err := l.local.goesOn(t.Context(), l.client); goesOn || err != nil {
				t.Errorf("got %t, %v", goesOn, err)
			}
		})
	}
}

func mustLast(l *line) (last ltx.TXID) {
	l.t.Helper()
	last, err := l.local.last()
	l.must(err)
	return last
}

// A WAL that ends before what was shipped of it has lost its end.
func TestLostWAL(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	for range 3 {
		l.write()
	}
	if lost, missed, err := l.local.checkWAL(t.Context()); lost || missed || err != nil {
		t.Fatalf("whole: got %t, %t, %v", lost, missed, err)
	}
	copied := newLocal(t.TempDir())
	l.must(os.CopyFS(copied.dataDir, os.DirFS(l.local.dataDir)))
	wal := copied.data() + "-wal"
	info, err := os.Stat(wal)
	l.must(err)
	l.must(os.Truncate(wal, info.Size()-100))
	last, err := copied.last()
	l.must(err)
	if lost, missed, err := copied.checkWAL(t.Context()); !lost || missed || err != nil {
		t.Errorf("its end is cut off: got %t, %t, %v", lost, missed, err)
	}
	if left, err := copied.last(); left != last-1 || err != nil {
		t.Errorf("of what was read, up to %d is left of %d, %v", left, last, err)
	}
	gone := newLocal(t.TempDir())
	l.must(os.CopyFS(gone.dataDir, os.DirFS(l.local.dataDir)))
	l.must(os.Remove(gone.data() + "-wal"))
	if lost, missed, err := gone.checkWAL(t.Context()); !lost || missed || err != nil {
		t.Errorf("it is gone: got %t, %t, %v", lost, missed, err)
	}
	_, err = countRecords(t.Context(), copied.data()) // which ends it
	l.must(err)
	if _, err := os.Stat(wal); err == nil {
		t.Error("it has not ended")
	}
	if lost, missed, err := copied.checkWAL(t.Context()); lost || missed || err != nil {
		t.Errorf("it is all in the database: got %t, %t, %v", lost, missed, err)
	}
}

// A moment within the retention can be restored after the daily copy too.
func TestRetentionKeepsItsMoments(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.shipping.keep.retention = 24 * time.Hour
	keep := l.shipping.keep
	for day := range 4 {
		l.write()
		l.must(keep.keep(t.Context(), 1))
		l.ageEpoch(time.Duration(day+1) * 25 * time.Hour)
		l.must(keep.copyWhole(t.Context()))
		l.age(25 * time.Hour)
		l.write()
		time.Sleep(20 * time.Millisecond)
		moment, rows := time.Now(), l.rows
		time.Sleep(20 * time.Millisecond)
		l.write()
		l.must(keep.keep(t.Context(), 1))
		l.must(keep.keep(t.Context(), litestream.SnapshotLevel))
		if got := l.restored(moment); got != rows {
			t.Errorf("day %d: got %d rows, want %d", day, got, rows)
		}
	}
}

// A whole copy has nothing that is not shipped yet: a server that died then would not go on from what is here.
func TestAWholeCopyIsOfWhatIsShipped(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.write()
	l.exec("INSERT INTO rows VALUES (0, 'not shipped')")
	l.must(l.shipping.db.Sync(t.Context()))
	_ = l.shipping.keep.copyWhole(t.Context())
	if goesOn, err := l.local.goesOn(t.Context(), l.client); !goesOn || err != nil {
		t.Errorf("goes on: %t, %v", goesOn, err)
	}
	l.write()
	l.must(l.shipping.keep.copyWhole(t.Context()))
	if n := l.files(litestream.SnapshotLevel); n != 1 {
		t.Errorf("%d whole copies, want 1", n)
	}
	if goesOn, err := l.local.goesOn(t.Context(), l.client); !goesOn || err != nil {
		t.Errorf("after the copy: goes on: %t, %v", goesOn, err)
	}
}

// A clock that is set forward takes no more than one copy from the history.
func TestAWrongClockTakesLittle(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	keep := l.shipping.keep
	for range 5 {
		l.write()
		l.must(keep.keep(t.Context(), 1))
		l.must(keep.copyWhole(t.Context()))
		l.age(25 * time.Hour)
	}
	copies := l.files(litestream.SnapshotLevel)
	l.age(30 * 24 * time.Hour)
	l.must(keep.keep(t.Context(), litestream.SnapshotLevel))
	if left := l.files(litestream.SnapshotLevel); left < copies-1 {
		t.Errorf("%d of %d copies are left", left, copies)
	}
	if got := l.restored(time.Time{}); got != l.rows {
		t.Errorf("restored %d rows, want %d", got, l.rows)
	}
}

// A clock that was ahead and is set back keeps no whole copy from being made, and no seconds for ever.
func TestAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	keep := l.shipping.keep
	for range 5 {
		l.write()
	}
	l.must(keep.keep(t.Context(), 1))
	l.must(keep.copyWhole(t.Context()))
	l.age(-10 * 365 * 24 * time.Hour)
	l.write()
	l.must(keep.keep(t.Context(), secondsLevel))
	if n := l.files(secondsLevel); n != 1 {
		t.Errorf("%d files of seconds are left, want the newest", n)
	}
	l.must(keep.keep(t.Context(), litestream.SnapshotLevel))
	if n := l.files(litestream.SnapshotLevel); n != 2 {
		t.Errorf("%d whole copies, want another one", n)
	}
	if got := l.restored(time.Time{}); got != l.rows {
		t.Errorf("restored %d rows, want %d", got, l.rows)
	}
}

// What is here of old seconds goes, also where its objects went without it.
func TestSecondsAreForgottenHere(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	for range 5 {
		l.write()
	}
	l.must(l.shipping.keep.keep(t.Context(), 1))
	last := mustLast(l)
	for txid := range last - 1 {
		l.must(l.bucket.Delete(t.Context(), []string{l.client.key(secondsLevel, txid+1, txid+1)}))
	}
	l.must(l.shipping.keep.keep(t.Context(), secondsLevel))
	entries, err := os.ReadDir(filepath.Dir(l.local.ltxPath(1)))
	if l.must(err); len(entries) != 1 {
		t.Errorf("%d files are left here, want the newest", len(entries))
	}
}

// What a server that was killed had not written whole goes from a folder, and nothing else.
func TestLeftoversAreSwept(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.write()
	root := string(l.bucket.(folder))
	touch := func(name string, age time.Duration) string {
		path := filepath.Join(root, name)
		l.must(os.MkdirAll(filepath.Dir(path), 0o700))
		l.must(os.WriteFile(path, nil, 0o600))
		l.must(os.Chtimes(path, time.Time{}, time.Now().Add(-age)))
		return path
	}
	var left, kept []string
	for _, dir := range []string{"", "epochs", "0000000001/0", "0000000001/9"} {
		left = append(left, touch(filepath.Join(dir, ".new-123"), 25*time.Hour))
		kept = append(kept, touch(filepath.Join(dir, ".new-456"), 23*time.Hour))
	}
	kept = append(kept, touch("something/else/.new-123", 25*time.Hour), touch(".other", 25*time.Hour))
	l.must(l.shipping.keep.keep(t.Context(), litestream.SnapshotLevel))
	for _, path := range left {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is there still", path)
		}
	}
	for _, path := range kept {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if got := l.restored(time.Time{}); got != l.rows {
		t.Errorf("restored %d rows, want %d", got, l.rows)
	}
}

// A meddledBucket does something before the first read of a whole object.
type meddledBucket struct {
	bucket
	key    string
	meddle func()
}

func (b *meddledBucket) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	if key == b.key && offset == 0 && size == 0 && b.meddle != nil {
		meddle := b.meddle
		b.meddle = nil
		meddle()
	}
	return b.bucket.Get(ctx, key, offset, size)
}

// What the keeper puts together while restore --verify reads it is no damage.
func TestVerifyWhileTheKeeperWorks(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	for range 5 {
		l.write()
	}
	store, key := l.bucket, l.client.key(secondsLevel, mustLast(l), mustLast(l))
	reader, err := New(l.app, nil, l.options)
	l.must(err)
	reader.options.Describe = func(dbx.Builder) []string { return nil }
	reader.bucket = &meddledBucket{bucket: store, key: key, meddle: func() {
		l.write()
		l.must(l.shipping.keep.keep(t.Context(), 1))
		l.age(6 * time.Minute)
		l.write()
		l.must(l.shipping.keep.keep(t.Context(), secondsLevel))
	}}
	var out bytes.Buffer
	if err := (&restoration{r: reader, out: &out, verify: true}).run(t.Context()); err != nil {
		t.Errorf("verify: %v", err)
	}
	if _, err := store.Get(t.Context(), key, 0, 0); err == nil {
		t.Error("the file was not deleted meanwhile")
	}
}
