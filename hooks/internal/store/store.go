// Package store knows the rows of the plugin's collections.
package store

import (
	"time"

	"github.com/pocketbase/pocketbase/tools/types"
)

// The collections. A callback's row has the id of its record. Channels are those of requests
// that are not in Requests any more.
const (
	Content   = "aiContent"
	Callbacks = "modelriverCallbacks"
	Requests  = "aiRequests"
	Channels  = "modelriverChannels"
)

// DateTime rounds t to what a date field keeps.
func DateTime(t time.Time) types.DateTime {
	d, _ := types.ParseDateTime(t.UTC().Truncate(time.Millisecond))
	return d
}
