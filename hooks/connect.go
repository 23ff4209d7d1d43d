package hooks

import (
	"path/filepath"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/prepared"
)

// DBConnect opens a database as PocketBase does, but data.db so that a commit is on disk
// when it returns, which a webhook's 200 promises, and so that a transaction waits its
// turn when it begins instead of failing later, when a command writes beside the server.
// It is for pocketbase.Config.DBConnect.
func DBConnect(path string) (*dbx.DB, error) {
	if filepath.Base(path) != "data.db" {
		return core.DefaultDBConnect(path)
	}
	// busy_timeout must come first, before a pragma that may have to wait.
	return prepared.Open(path + "?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=journal_size_limit(200000000)&_pragma=synchronous(FULL)&_pragma=foreign_keys(ON)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-32000)")
}
