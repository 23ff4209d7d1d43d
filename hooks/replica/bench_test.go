package replica

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/pocketbase/pocketbase/core"
)

// What a write costs: as PocketBase opens a database, with a log, and with one that three nodes on this machine have on disk.
func BenchmarkWrite(b *testing.B) {
	for _, row := range []struct {
		name string
		open func() *sql.DB
	}{
		{"no log", func() *sql.DB {
			db, err := core.DefaultDBConnect(filepath.Join(b.TempDir(), "data.db"))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { db.Close() })
			return db.DB()
		}},
		{"one node", func() *sql.DB { return newStreamPair(b).open(b) }},
		{"three nodes", func() *sql.DB {
			c := newCluster(b)
			c.start(b, 0, 1, 2)
			return c.dbs[c.leader(b)]
		}},
	} {
		db := row.open()
		mustExec(b, db, "CREATE TABLE a (b)")
		b.Run(row.name, func(b *testing.B) {
			for b.Loop() {
				mustExec(b, db, "INSERT INTO a VALUES (randomblob(2000))")
			}
		})
	}
}
