package outbox

import (
	"errors"
	"strings"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A row's lastError says why the event was refused, why the last attempt failed, and why
// there was no other after it.

const errorCallback = "; error callback: " // what became of it follows

var (
	errNoURL   = errors.New("no callback URL")
	errNoKey   = errors.New("no API key was set within the callback window: set MODELRIVER_API_KEY, restart, and retry this callback")
	errSilent  = errors.New("no answer to the last callbacks to this host, and the callback window has ended")
	errStopped = errors.New("the outbox was stopped") // in no row
)

// notSent reports whether err is why a callback was not even sent.
func notSent(err error) bool {
	return errors.Is(err, errNoKey) || errors.Is(err, errSilent) || errors.Is(err, modelriver.ErrCallbackHost)
}

// refusal returns why the event was refused.
func refusal(cb *store.Callback) string {
	refusal, _, _ := strings.Cut(cb.Reason, errorCallback)
	return refusal
}

// lastFailure returns why the last attempt failed. It is empty if there was none.
func lastFailure(cb *store.Callback) string {
	if cb.Refused {
		_, last, _ := strings.Cut(cb.Reason, errorCallback)
		return last
	}
	return cb.Reason
}

// failure returns what the row is to say of err: behind the refusal, if the event was
// refused, and behind the last failure, if err is only why the callback was not sent.
func failure(cb *store.Callback, err error) string {
	last, text := lastFailure(cb), err.Error()
	switch {
	case !notSent(err) || last == "":
	case strings.Contains(last, text):
		text = last
	default:
		text = last + "; not sent again: " + text
	}
	if cb.Refused {
		return refusal(cb) + errorCallback + text
	}
	return text
}
