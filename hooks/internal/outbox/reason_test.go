package outbox

import (
	"errors"
	"fmt"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// The last real cause stays in the row, whatever kept the callback from being sent again.
func TestLastErrorKeepsTheCause(t *testing.T) {
	t.Parallel()
	hostErr := fmt.Errorf("%w: host %q", modelriver.ErrCallbackHost, "x")
	for _, row := range []struct {
		name    string
		refused bool
		last    string // in the row
		err     error
		want    string
	}{
		{"first attempt", false, "", errors.New("reset"), "reset"},
		{"another attempt", false, "refused", errors.New("reset"), "reset"},
		{"silence", false, "reset", errSilent, "reset; not sent again: " + errSilent.Error()},
		{"silence twice", false, "reset; not sent again: " + errSilent.Error(), errSilent, "reset; not sent again: " + errSilent.Error()},
		{"no key", false, "reset", errNoKey, "reset; not sent again: " + errNoKey.Error()},
		{"a host that is not allowed any more", false, "reset", hostErr, "reset; not sent again: " + hostErr.Error()},
		{"a host that never was", false, "", hostErr, hostErr.Error()},
		{"silence, never tried", false, "", fmt.Errorf("%w: %w", errSilent, errors.New("reset")), errSilent.Error() + ": reset"},
		{"refused, first attempt", true, "refused: no", errors.New("reset"), "refused: no; error callback: reset"},
		{"refused, another attempt", true, "refused: no; error callback: reset", errors.New("500"), "refused: no; error callback: 500"},
		{"refused, silence", true, "refused: no; error callback: reset", errSilent, "refused: no; error callback: reset; not sent again: " + errSilent.Error()},
		{"refused, no key", true, "refused: no", errNoKey, "refused: no; error callback: " + errNoKey.Error()},
	} {
		cb := &store.Callback{Refused: row.refused, Reason: row.last}
		if got := failure(cb, row.err); got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
}
