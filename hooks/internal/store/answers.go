package store

import (
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
)

// An Answer tells whose answer an event is.
type Answer struct {
	Found     bool
	RequestId string // that it completes; empty if it only belongs to the same user
	ChannelId string
	UserId    string // of the request; empty if it has none

	kept string // id of the row in modelriverChannels that now has its channel
}

// asked is what is kept of one request.
type asked struct {
	Id        string `db:"id"`
	ChannelId string `db:"channelId"`
	UserId    string `db:"userId"`
	Attempts  int    `db:"attempts"`
	Kept      string `db:"kept"` // id of its row in modelriverChannels, if it is there
}

const (
	askedByChannel = `
		SELECT id, channelId, userId, attempts, '' AS kept FROM aiRequests WHERE channelId = {:key}
		UNION ALL SELECT request, channelId, userId, 1, id FROM modelriverChannels WHERE channelId = {:key} LIMIT 1`
	// Of those that are kept, the one that has no channel yet.
	askedById = `
		SELECT * FROM (
			SELECT id, channelId, userId, attempts, '' AS kept FROM aiRequests WHERE id = {:key}
			UNION ALL SELECT request, channelId, userId, 1, id FROM modelriverChannels WHERE request = {:key}
		) ORDER BY kept != '', channelId LIMIT 1`
)

// FindAnswer finds whose answer an event is: by its channel, which only ModelRiver and the
// request know, in every state of the request; else by the id of the request that a signed
// part of the event echoes. One that contradicts itself is nobody's.
func FindAnswer(tx core.App, channelId, requestId string) (answer Answer, err error) {
	byChannel, err := findAsked(tx, askedByChannel, channelId)
	if err != nil {
		return answer, err
	}
	byId, err := findAsked(tx, askedById, requestId)
	if err != nil {
		return answer, err
	}
	answer = Answer{Found: byChannel != nil || byId != nil, ChannelId: channelId}
	switch {
	case !answer.Found:
	case byChannel != nil && byId != nil && byChannel.Id != byId.Id:
		answer.UserId = Unmatched
	case byChannel != nil:
		answer.UserId = byChannel.UserId
		if byChannel.Kept == "" {
			answer.RequestId = byChannel.Id
		}
	default:
		answer.UserId = byId.UserId
		switch {
		case byId.ChannelId != "" || byId.Attempts == 0: // it has another channel, or never had one
		case byId.Kept == "":
			answer.RequestId = byId.Id
		default:
			answer.kept = byId.Kept
		}
	}
	return answer, nil
}

func findAsked(tx core.App, query, key string) (*asked, error) {
	if key == "" {
		return nil, nil
	}
	read := tx.ConcurrentDB().NewQuery
	if tx.IsTransactional() {
		read = func(query string) *dbx.Query { return commit.Query(tx, query) }
	}
	var found []asked
	if err := read(query).Bind(dbx.Params{"key": key}).All(&found); err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// IsStored reports whether there is content with the id.
func IsStored(app core.App, id string) (stored bool, err error) {
	err = app.ConcurrentDB().NewQuery("SELECT EXISTS (SELECT 1 FROM aiContent WHERE id = {:id})").Bind(dbx.Params{"id": id}).Row(&stored)
	return stored, err
}

// MayBeAnswer reports whether there are requests of which nobody knows whether ModelRiver
// took them, so that an event nobody is known to have asked for may be the answer to one.
func MayBeAnswer(tx core.App, now time.Time) (may bool, err error) {
	err = commit.Query(tx, `
		SELECT EXISTS (SELECT 1 FROM aiRequests WHERE state = 'failed' AND expires > {:now} AND channelId = '')
			OR EXISTS (SELECT 1 FROM modelriverChannels WHERE channelId = '' AND expires > {:now})`,
	).Bind(dbx.Params{"now": DateTime(now)}).Row(&may)
	return may, err
}

// Complete gives the answer that is stored as the record to its request and its user. The
// first answer is the request's; those behind it only belong to the same user.
func (a *Answer) Complete(tx core.App, recordId string) error {
	if err := a.learnChannel(tx); err != nil || a.RequestId == "" {
		return err
	}
	request, err := FindRequest(tx, a.RequestId)
	if err != nil || request == nil {
		return err
	}
	if request.GetString("state") == Answered {
		return nil
	}
	if request.GetString("channelId") == "" {
		request.Set("channelId", a.ChannelId)
	}
	request.Set("state", Answered)
	request.Set("record", recordId)
	request.Set("error", "")
	request.Set("nextAttempt", "")
	request.Set("expires", "")
	return saveSurely(tx, request)
}

// Fail turns the request of an event that tells of an error failed, or of an answer that was
// refused. Another answer may still come.
func (a *Answer) Fail(tx core.App, reason string) error {
	if err := a.learnChannel(tx); err != nil || a.RequestId == "" {
		return err
	}
	request, err := FindRequest(tx, a.RequestId)
	if err != nil || request == nil || request.GetString("state") == Answered {
		return err
	}
	if request.GetString("channelId") == "" {
		request.Set("channelId", a.ChannelId)
	}
	return EndRequest(tx, request, reason, time.Time{})
}

// learnChannel notes the channel of a request that is not in aiRequests any more, and gives
// its user what was stored of the channel before anybody knew whose it is.
func (a *Answer) learnChannel(tx core.App) error {
	if !a.Found || a.UserId == Unmatched || a.ChannelId == "" {
		return nil
	}
	if a.kept != "" {
		_, err := tx.NonconcurrentDB().Update(Channels,
			dbx.Params{"channelId": a.ChannelId, "expires": ""}, dbx.HashExp{"id": a.kept}).Execute()
		if err != nil {
			return err
		}
	}
	return ownChannel(tx, a.ChannelId, a.UserId)
}

// ownChannel gives what is stored of the channel to the user of its request. Of a request
// without a user, it is everybody's, if nothing else names one.
func ownChannel(tx core.App, channelId, userId string) error {
	var others []string
	err := commit.Query(tx, `
		SELECT id FROM aiContent
		WHERE channelId = {:channel} AND userId != {:user} AND ({:user} != '' OR userId = {:unmatched})`,
	).Bind(dbx.Params{"channel": channelId, "user": userId, "unmatched": Unmatched}).Column(&others)
	for _, id := range others {
		if err == nil {
			err = setOwner(tx, id, userId)
		}
	}
	return err
}

func setOwner(tx core.App, id, userId string) error {
	record, err := commit.FindRecord(tx, Content, id)
	if err != nil {
		return err
	}
	record.Set("userId", userId)
	return saveSurely(tx, record)
}

// SentRequest writes down that ModelRiver took the attempt of the request, under the channel. Its
// answer may have come before, and the request may be gone, ended or armed again since.
func SentRequest(tx core.App, claimed *core.Record, channelId string, now time.Time) error {
	id := claimed.Id
	request, err := FindRequest(tx, id)
	if err != nil {
		return err
	}
	if request == nil {
		return sentDeleted(tx, id, channelId)
	}
	userId, known := request.GetString("userId"), request.GetString("channelId")
	if !IsAttempt(request, claimed) || known != "" && known != channelId {
		if err := KeepChannel(tx, request, channelId, time.Time{}); err != nil {
			return err
		}
		return ownChannel(tx, channelId, userId)
	}
	state := request.GetString("state")
	if known == channelId && state != Queued {
		return nil // written already
	}
	request.Set("channelId", channelId)
	switch state {
	case Queued:
		request.Set("state", Sent)
		request.Set("nextAttempt", "")
		request.Set("expires", DateTime(now.Add(AnswerTime)))
	case Failed:
		request.Set("expires", "") // it was ended by hand, but its channel is known now
	}
	if err := saveSurely(tx, request); err != nil {
		return err
	}
	return completeStored(tx, request)
}

// completeStored gives the request an answer that was stored before its channel was known.
func completeStored(tx core.App, request *core.Record) error {
	answer := Answer{Found: true, RequestId: request.Id, ChannelId: request.GetString("channelId"), UserId: request.GetString("userId")}
	var first []string
	err := commit.Query(tx, "SELECT id FROM aiContent WHERE channelId = {:channel} ORDER BY created, id LIMIT 1").
		Bind(dbx.Params{"channel": answer.ChannelId}).Column(&first)
	if err != nil || len(first) == 0 {
		return err
	}
	return answer.Complete(tx, first[0])
}

// sentDeleted is SentRequest for a request that was deleted while it was sent.
func sentDeleted(tx core.App, id, channelId string) error {
	kept, err := findAsked(tx, askedById, id)
	if err != nil || kept == nil || kept.Kept == "" {
		return err
	}
	answer := Answer{Found: true, ChannelId: channelId, UserId: kept.UserId, kept: kept.Kept}
	return answer.learnChannel(tx)
}
