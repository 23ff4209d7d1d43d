package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/routine"
)

// healPause is how long a node waits before it tries again to read its log.
const healPause = 500 * time.Millisecond

// A saying is what was logged last of something that may go on for long, and is logged again when it changes.
type saying string

func (s *saying) isNew(text string) bool {
	before := *s
	*s = saying(text)
	return text != string(before)
}

// fall has the node read its log before anything is written again: it may have what the
// database doesn't. It returns what the writer gets.
func (n *Node) fall(cause error) error {
	if n.ready.CompareAndSwap(true, false) {
		n.fell <- cause
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, cause)
}

// heal makes the node ready again whenever it isn't any more.
func (n *Node) heal(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case cause := <-n.fell:
			n.logger().Error("The log didn't take a change: nothing is written until it is read again", "error", cause)
		}
		for said := saying(""); ; {
			err := n.resume()
			if err == nil {
				n.logger().Info("The log takes changes again")
				if n.ready.Store(!n.condemned.Load()); n.Leads() {
					n.begins()
				}
				break
			}
			if isDiverged(err) {
				err = n.condemn(err.Error())
				if err == nil {
					return
				}
			}
			if said.isNew(err.Error()) {
				n.logger().Error("The log can't be read: nothing is written until it is", "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(healPause):
			}
		}
	}
}

// resume brings the database to the end of the log, whose answer may have been lost.
func (n *Node) resume() error {
	if err := n.restart(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.catchUp(context.Background(), n.applier, endOfLog)
}

// reloadAt has PocketBase read again what it has in memory, if entries up to a position have changed that: then that is reached.
func (n *Node) reloadAt(position uint64) error {
	if n.bootstrapped.Load() { // or it may read them just now, as they were before
		if err := n.reloadApp(n.applier.collections, n.applier.settings); err != nil {
			return fmt.Errorf("what the app has of the log %w: %w", errUnapplied, err)
		}
		n.applier.collections, n.applier.settings = false, false
	}
	n.reached.set(position)
	return nil
}

func (n *Node) reloadApp(collections, settings bool) error {
	app, ok := n.app.Load().(core.App)
	if !ok || !n.bootstrapped.Load() { // which reads them then
		return nil
	}
	if collections {
		if err := app.ReloadCachedCollections(); err != nil {
			return err
		}
	}
	if settings {
		// Where none are stored, PocketBase would store its own, which only who leads can: then nothing could be applied any more.
		var stored int
		if err := app.DB().NewQuery("SELECT count(*) FROM _params WHERE id = 'settings'").Row(&stored); err != nil || stored == 0 {
			return err
		}
		return routine.SafeWrap(app.ReloadSettings)() // which has hooks, and nothing else here recovers
	}
	return nil
}

// reloadBehind has PocketBase read collections again when it has done so itself, because a change of them failed: the log may have that
// all the same, and what it read may be from before that was applied.
func (n *Node) reloadBehind(e *core.CollectionErrorEvent) error {
	err := e.Next()
	reload := func(error) error {
		n.mu.Lock() // what is applied is whole then
		defer n.mu.Unlock()
		return n.reloadApp(true, false)
	}
	if tx := e.App.TxInfo(); tx != nil { // which keeps others from applying
		tx.OnComplete(reload)
		return err
	}
	return errors.Join(err, reload(nil))
}

// reloadChanged is reload for an entry that this node has written for a command, of which the app doesn't know.
func (n *Node) reloadChanged(entry []byte) {
	var collections, settings bool
	for c, err := range decode(entry) {
		if err != nil { // none: it was written just now
			break
		}
		collections, settings = collections || c.ofCollections(), settings || c.ofSettings()
	}
	if err := n.reloadApp(collections, settings); err != nil {
		n.logger().Error("What a command has changed of collections or settings can't be read: restart the server", "error", err)
	}
}
