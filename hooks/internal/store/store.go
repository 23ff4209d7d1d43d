// Package store knows the rows of the plugin's collections.
package store

import (
	"time"

	"github.com/pocketbase/pocketbase/tools/types"
)

// The collections. A callback's row has the id of its record.
const (
	Content   = "aiContent"
	Callbacks = "modelriverCallbacks"
)

// DateTime rounds t to what a date field keeps.
func DateTime(t time.Time) types.DateTime {
	d, _ := types.ParseDateTime(t.UTC().Truncate(time.Millisecond))
	return d
}
