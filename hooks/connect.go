package hooks

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/prepared"
)

// DBConnect opens a database as PocketBase does, but data.db so that a commit is on disk
// when it returns, which a webhook's 200 promises, and so that a transaction waits its
// turn when it begins instead of failing later, when a command writes beside the server.
// It is for pocketbase.Config.DBConnect. It refuses a data.db that follows the log of several
// nodes, of which it would become another database without that.
func DBConnect(path string) (*dbx.DB, error) {
	if filepath.Base(path) != "data.db" {
		return core.DefaultDBConnect(path)
	}
	// busy_timeout must come first, before a pragma that may have to wait.
	db, err := prepared.Open(path + "?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=journal_size_limit(200000000)&_pragma=synchronous(FULL)&_pragma=foreign_keys(ON)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-32000)")
	if err != nil {
		return nil, err
	}
	follows, err := followsLog(db)
	if follows {
		err = logRefusal(path)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// logTable is what hooks/replica has in a database that follows a log.
const logTable = "_replicaPosition"

func followsLog(db *dbx.DB) (follows bool, err error) {
	err = db.NewQuery("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '" + logTable + "')").Row(&follows)
	return follows, err
}

func logRefusal(path string) error {
	return fmt.Errorf("%s is the database of several nodes, and written by a node only: set POCKETRIVER_NODE and POCKETRIVER_PEERS, as before, or end that with \"cluster leave\"", path)
}
