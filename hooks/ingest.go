package hooks

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// ingest stores the event as a record, and with it, in one transaction, the callback
// that is owed for it and what is kept of the webhook, if that is not nil. It returns nil
// when that is committed, also for an event that is stored already or that was refused.
// The error is [errUndecided], or the database's.
func (p *plugin) ingest(event *modelriver.Event, payload []byte, kept *store.Payload) error {
	id := recordId(event, payload)
	if event.UserID == "" { // else it is that user's, whoever asked
		if err := p.checkDecided(event, id); err != nil {
			return err
		}
	}
	now := p.outbox.Now()
	ticket, cb := p.outbox.Admit(id, event.CallbackURL)
	var record *core.Record
	err := p.commits.Wait(&commit.Write{
		Size: len(payload),
		Run: func(tx core.App) (err error) {
			record, err = p.store(tx, event, cb, now)
			return err
		},
		Instead: func(tx core.App, cause error) (err error) {
			record, err = p.refuse(tx, event, payload, cb, cause, now)
			return err
		},
	})
	switch {
	case err != nil:
		ticket.Dropped() // and nothing of cb is read: a write that took too long may still run
		return err
	case record == nil && !cb.Refused: // a duplicate
		ticket.Dropped()
		p.outbox.Wake() // its row may have been armed again
		return nil
	case cb.Refused:
		p.app.Logger().Error("Refused a webhook: its payload is kept with its callback", "error", cb.Reason, "callback", cb.Id)
	}
	if kept != nil {
		kept.Id, kept.Came = id, now
		p.payloads.add(kept)
	}
	ticket.Stored()
	return nil
}

// store writes the event's record and callback row, and returns the record. If the
// event is stored already it returns nil, and changes nothing but a failed callback,
// which it arms again; but if the callback row says that the event was refused, it is
// written anew. The error is a [*store.Refusal] if the record may not be stored.
func (p *plugin) store(tx core.App, event *modelriver.Event, cb *store.Callback, now time.Time) (*core.Record, error) {
	cb.Refused, cb.Reason = false, ""
	stored, err := store.FindStored(tx, cb.Id)
	if err != nil {
		return nil, err
	}
	if !stored.Refused && (stored.Record || stored.State != "") {
		if stored.State == store.Failed {
			err = store.RearmFailed(tx, cb.Id, now, cb.Expires)
		}
		if stored.Record && err == nil {
			err = p.completeAgain(tx, event, cb.Id)
		}
		return nil, err
	}

	event, answer, err := p.findAsker(tx, event, now)
	if err != nil {
		return nil, err
	}
	var record *core.Record
	if stored.Record {
		record, err = tx.FindRecordById(store.Content, cb.Id)
	} else {
		record, err = saveRecord(tx, event, cb.Id)
	}
	if err != nil {
		return nil, err
	}
	if err := answer.Complete(tx, record.Id); err != nil {
		return nil, err
	}
	if cb.URL == "" { // no callback is owed, nor any longer one that tells of a refusal
		if stored.Refused {
			err = store.DeleteCallback(tx, cb.Id)
		}
		return record, err
	}
	data := json.RawMessage(record.GetString("data"))
	if !bytes.Equal(data, event.Data) {
		if kept, err := rawjson.Readable(event.Data); err == nil && bytes.Equal(kept, data) {
			data = rawjson.ValidUTF8(event.Data) // no hook changed it: ModelRiver gets its own numbers
		}
	}
	cb.Body, err = modelriver.CallbackBody(data, store.Content, record.Id, record.GetDateTime("created").Time())
	if err != nil {
		return nil, &store.Refusal{Cause: fmt.Errorf("data: %w", err)}
	}
	return record, cb.Insert(tx, now, record.Id, "")
}

// refuse is what store's refusal leads to: the callback row keeps the payload, and owes
// ModelRiver the cause. What is stored all the same is never called refused.
func (p *plugin) refuse(tx core.App, event *modelriver.Event, payload []byte, cb *store.Callback, cause error, now time.Time) (*core.Record, error) {
	var refused *store.Refusal
	if !errors.As(cause, &refused) {
		return nil, cause
	}
	stored, err := store.FindStored(tx, cb.Id)
	if err != nil {
		return nil, err
	}
	if stored.Record || stored.State != "" && !stored.Refused {
		return p.store(tx, event, cb, now)
	}
	event, answer, err := p.findAsker(tx, event, now)
	if err != nil {
		return nil, err
	}
	if err := answer.Fail(tx, cmp.Or(errorOf(event), reasonRefused)); err != nil {
		return nil, err
	}
	cb.Refused, cb.Reason = true, refused.Error()
	cb.Body = modelriver.ErrorCallbackBody(cb.Reason)
	return nil, cb.Insert(tx, now, "", keptPayload(event, payload))
}

// reingest stores the event of a refused row that was armed again.
func (p *plugin) reingest(tx core.App, cb *store.Callback, payload string) error {
	if claimed, err := cb.IsClaimed(tx); err != nil || !claimed {
		return err // somebody deleted or ended it meanwhile
	}
	event, err := modelriver.ParseEvent(http.Header{}, []byte(payload))
	if err != nil {
		return &store.Refusal{Cause: err}
	}
	now := p.outbox.Now()
	next := *cb
	next.Attempts, next.NextAttempt = 0, now
	next.Expires = store.DateTime(now.Add(p.config.CallbackWindow))
	_, err = p.store(tx, event, &next, now)
	return err
}
