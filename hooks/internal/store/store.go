// Package store knows the rows of the plugin's collections, and of its table.
package store

import (
	"time"

	"github.com/pocketbase/pocketbase/tools/types"
)

// The collections. A callback's row has the id of its record. Channels are those of requests
// that are not in Requests any more. Attempts are each time that a callback was sent. Rejections
// count webhooks that were answered with an error unread.
const (
	Content    = "aiContent"
	Callbacks  = "modelriverCallbacks"
	Requests   = "aiRequests"
	Channels   = "modelriverChannels"
	Attempts   = "modelriverAttempts"
	Rejections = "modelriverRejections"
)

// Payloads is the table of auxiliary.db that has webhooks as they came.
const Payloads = "modelriverPayloads"

// DateTime rounds t to what a date field keeps.
func DateTime(t time.Time) types.DateTime {
	d, _ := types.ParseDateTime(t.UTC().Truncate(time.Millisecond))
	return d
}
