package hooks

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/archive"
)

// A backup holds the data directory as it is, with databases that are complete without
// their WAL.
func TestBackup(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	server.mustPost(t, generated("backup", `{"title":"Kept"}`, ""))
	onlyPayload(t, server)
	stored := filepath.Join(server.DataDir(), "storage", "pbc_1", "r1", "file.txt")
	if err := os.MkdirAll(filepath.Dir(stored), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stored, []byte("uploaded"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first.zip", "second.zip"} {
		if err := server.CreateBackup(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}

	dir := t.TempDir()
	if err := archive.Extract(filepath.Join(server.DataDir(), core.LocalBackupsDirName, "second.zip"), dir); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "storage", "pbc_1", "r1", "file.txt")); err != nil || string(got) != "uploaded" {
		t.Errorf("uploaded file: got %q, %v", got, err)
	}
	for _, name := range []string{"data.db-wal", "data.db-shm", core.LocalBackupsDirName, core.LocalTempDirName} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is in the backup", name)
		}
	}
	for _, name := range databases {
		db, err := core.DefaultDBConnect(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var integrity string
		if err := db.NewQuery("PRAGMA integrity_check").Row(&integrity); err != nil || integrity != "ok" {
			t.Errorf("%s: %q, %v", name, integrity, err)
		}
		query := map[string]string{
			"data.db":      "SELECT title FROM aiContent",
			"auxiliary.db": "SELECT json_extract(payload, '$.ai_response.data.title') FROM modelriverPayloads",
		}[name]
		var title string
		if err := db.NewQuery(query).Row(&title); err != nil || title != "Kept" {
			t.Errorf("title in %s: got %q, %v", name, title, err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(server.DataDir(), core.LocalTempDirName)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Files whose records are deleted while a backup is made, with their folders, don't end it.
func TestBackupWhileFilesAreDeleted(t *testing.T) {
	t.Parallel()
	dataDir := t.TempDir()
	record := func(i int) string { return filepath.Join(dataDir, "storage", "pbc_1", fmt.Sprintf("r%04d", i)) }
	const records = 1000
	for i := range records {
		if err := os.MkdirAll(record(i), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(record(i), "file.txt"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	deleted := make(chan error)
	go func() {
		var err error
		for i := records - 1; i >= 0 && err == nil; i-- { // towards what is looked at from the other end
			err = os.RemoveAll(record(i))
		}
		deleted <- err
	}()
	if err := linkFiles(dataDir, t.TempDir(), nil); err != nil {
		t.Error(err)
	}
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	if err := linkFiles(filepath.Join(dataDir, "missing"), t.TempDir(), nil); err == nil {
		t.Error("a data directory that is not there was backed up")
	}
}
