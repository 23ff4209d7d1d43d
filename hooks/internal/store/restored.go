package store

import (
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// CountOwed returns how many callbacks and requests of a restored database wait. It may be of an
// earlier release, which had no requests.
func CountOwed(db dbx.Builder) (callbacks, requests int) {
	_ = db.NewQuery("SELECT COUNT(*) FROM modelriverCallbacks WHERE state = 'pending'").Row(&callbacks)
	_ = db.NewQuery("SELECT COUNT(*) FROM aiRequests WHERE state = 'queued'").Row(&requests)
	return callbacks, requests
}

// ForgetUnsent makes each request of a restored database that waits one that was being sent: it
// may have been, after the moment that was restored, and is not to be paid for twice.
func ForgetUnsent(app core.App) error {
	_, err := app.NonconcurrentDB().NewQuery("UPDATE aiRequests SET nextAttempt = '' WHERE state = 'queued'").Execute()
	return err
}
