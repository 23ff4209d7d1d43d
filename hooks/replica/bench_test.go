package replica

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// What a write costs, on disk: without a log, with one, and with one that three nodes on this machine have on disk;
// and what the log's servers alone need for as many bytes.
func BenchmarkWrite(b *testing.B) {
	for _, row := range []struct {
		name string
		open func() (*sql.DB, []*streamLog)
	}{
		{"no log", func() (*sql.DB, []*streamLog) {
			db, err := core.DefaultDBConnect(filepath.Join(b.TempDir(), "data.db"))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { db.Close() })
			db.DB().SetMaxOpenConns(1)
			mustExec(b, db.DB(), "PRAGMA synchronous = FULL") // as PocketRiver has it
			return db.DB(), nil
		}},
		{"one node", func() (*sql.DB, []*streamLog) {
			p := newStreamPair(b)
			return p.open(b), []*streamLog{p.leader.log}
		}},
		{"three nodes", func() (*sql.DB, []*streamLog) {
			c := newCluster(b)
			c.start(b, 0, 1, 2)
			return c.dbs[c.leader(b)], []*streamLog{c.nodes[0].log, c.nodes[1].log, c.nodes[2].log}
		}},
	} {
		db, logs := row.open()
		mustExec(b, db, "CREATE TABLE a (b)")
		b.Run(row.name, func(b *testing.B) {
			for b.Loop() {
				mustExec(b, db, "INSERT INTO a VALUES (randomblob(2000))")
			}
		})
		if logs != nil {
			l, entry := besides(b, logs), make([]byte, 2000)
			b.Run(row.name+", the log alone", func(b *testing.B) {
				for b.Loop() {
					if _, err := l.conn.Request("alone", entry, logTimeout); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// besides creates a stream of its own with the servers of logs, and returns the log whose server leads that.
func besides(b *testing.B, logs []*streamLog) (leads *streamLog) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), logTimeout)
	defer cancel()
	_, err := logs[0].js.CreateStream(ctx, jetstream.StreamConfig{Name: "alone", Subjects: []string{"alone"}, Replicas: len(logs)})
	if err != nil {
		b.Fatal(err)
	}
	apptest.Eventually(b, "a server leads the stream", func() bool {
		for _, l := range logs {
			if len(logs) == 1 || l.server.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, "alone") {
				leads = l
			}
		}
		return leads != nil
	})
	return leads
}
