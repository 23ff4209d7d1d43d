package store

import (
	"errors"
	"strings"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/tools/router"
)

// A Refusal is the final word of the app's hooks or of validation about an event.
type Refusal struct{ Cause error }

func (r *Refusal) Error() string { return "refused: " + reason(r.Cause) }
func (r *Refusal) Unwrap() error { return r.Cause }

// reason returns the message of a refusal in the words its author chose for it.
func reason(err error) string {
	var api *router.ApiError
	if errors.As(err, &api) {
		return api.Message
	}
	var fields validation.Errors
	if errors.As(err, &fields) {
		return strings.TrimSuffix(fields.Error(), ".") // its own, after each message's
	}
	return err.Error()
}
