package hooks

import (
	"errors"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// errUndecided is why a webhook is not stored yet that nobody is known to have asked for,
// while a request is being sent: its answer may overtake the channel id by which it is
// known, and would be everybody's.
var errUndecided = errors.New("a request is being sent, and this may be its answer")

// reasonRefused is what the user of a request reads. Why is the operator's to know: it
// stands with the callback.
const reasonRefused = "The answer came, but this server refused to store it."

// findAnswer finds which request the event answers.
func findAnswer(app core.App, event *modelriver.Event) (store.Answer, error) {
	return store.FindAnswer(app, clean(event.ChannelID), clean(event.RequestID))
}

// errorOf is the error that the event tells of, as long as a request can hold one.
func errorOf(event *modelriver.Event) string {
	return store.FirstCharacters(clean(event.Error), 2000)
}

// findAsker finds whose answer the event is, and returns the event as its user's: the
// request's if it has one, else the one that the event names. If nobody is known to have
// asked for it while somebody may have, it is for superusers only.
func (p *plugin) findAsker(tx core.App, event *modelriver.Event, now time.Time) (*modelriver.Event, store.Answer, error) {
	if !p.outbox.Asking() {
		return event, store.Answer{}, nil
	}
	answer, err := findAnswer(tx, event)
	if err != nil {
		return event, answer, err
	}
	userId := answer.UserId
	if !answer.Found && event.UserID == "" {
		may, err := store.MayBeAnswer(tx, now)
		if err != nil {
			return event, answer, err
		}
		if may {
			userId = store.Unmatched
			p.app.Logger().Warn("A webhook may be the answer to a request of which it is not known whether ModelRiver took it: only superusers see it. Make request_id and user_id cache fields of the workflow", "channelId", event.ChannelID)
		}
	}
	if userId == "" || userId == event.UserID {
		return event, answer, nil
	}
	owned := *event
	owned.UserID = userId
	return &owned, answer, nil
}

// completeAgain gives a record that was stored before to the request that it answers.
func (p *plugin) completeAgain(tx core.App, event *modelriver.Event, recordId string) error {
	if !p.outbox.Asking() {
		return nil
	}
	answer, err := findAnswer(tx, event)
	if err != nil {
		return err
	}
	return answer.Complete(tx, recordId)
}

// checkDecided returns errUndecided for an event that nobody is known to have asked for, but
// that may be the answer to a request that is being sent. It has the record's id.
func (p *plugin) checkDecided(event *modelriver.Event, id string) error {
	if !p.outbox.Asking() {
		return nil
	}
	undecided, err := p.outbox.Undecided(id) // before the tables are read: it ends once they tell
	if err != nil || !undecided {
		return err
	}
	stored, err := store.IsStored(p.app, id)
	if err != nil || stored {
		return err
	}
	answer, err := findAnswer(p.app, event)
	if err == nil && !answer.Found {
		err = errUndecided
	}
	return err
}

// failRequest turns the request failed that the event tells an error of.
func (p *plugin) failRequest(event *modelriver.Event, payload []byte) error {
	if event.Error == "" || !p.outbox.Asking() {
		return nil
	}
	if err := p.checkDecided(event, recordId(event, payload)); err != nil {
		return err
	}
	return p.commits.Do(func(tx core.App) error {
		answer, err := findAnswer(tx, event)
		if err != nil {
			return err
		}
		return answer.Fail(tx, errorOf(event))
	})
}
