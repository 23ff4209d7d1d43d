package simulator

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// preparePayload sets in payload, which is ours or a user's, what the options ask for. The
// parser finds it there, whatever the payload's shape, and no callback URL but the
// receiver's: the server would send the key to it.
func preparePayload(payload []byte, ours bool, options SendOptions, receiver *callbackReceiver) ([]byte, error) {
	payload = bytes.TrimPrefix(payload, []byte("\ufeff"))
	event, err := modelriver.ParseEvent(http.Header{}, payload)
	if err != nil {
		return nil, fmt.Errorf("the payload is not a JSON object: %w", err)
	}
	if ours {
		options.Channel = cmp.Or(options.Channel, uuid.NewString())
	}
	want := *event
	want.ChannelID = cmp.Or(options.Channel, event.ChannelID)
	want.Name = cmp.Or(options.Event, event.Name)
	want.UserID = cmp.Or(options.User, event.UserID)
	want.CallbackURL = ""
	if receiver != nil {
		want.CallbackURL = receiver.url(want.ChannelID)
	}
	members, err := membersToSet(event, want, options)
	if err != nil {
		return nil, err
	}
	if payload, err = setWhereItIsFound(payload, want, members); err != nil {
		return nil, err
	}
	if ours && options.Scheme == "data" { // the form in which ModelRiver's servers sign it
		payload = fmt.Appendf(nil, `{"channel_id":%s,"timestamp":"%d","data":%s}`, rawjson.String(want.ChannelID), time.Now().Unix(), compactJSON(payload))
	}
	return payload, modelriver.Sign(http.Header{}, options.Scheme, "any", time.Now(), payload) // whether it can be signed so
}

// membersToSet are those that make the wanted event of another.
func membersToSet(event *modelriver.Event, want modelriver.Event, options SendOptions) ([]rawjson.Member, error) {
	var members []rawjson.Member
	add := func(name, value string) {
		if value != "" {
			members = append(members, rawjson.Member{Name: name, Value: rawjson.String(value)})
		}
	}
	add("event", options.Event)
	add("channel_id", want.ChannelID)
	add("callback_url", want.CallbackURL)
	if want.CallbackURL == "" && event.CallbackURL != "" {
		members = append(members, rawjson.Member{Name: "callback_url", Value: json.RawMessage("null")})
	}
	if options.User != "" {
		customer := event.Customer
		if customer == nil {
			customer = json.RawMessage("{}")
		}
		customer, err := rawjson.SetMembers(customer, rawjson.Member{Name: "user_id", Value: rawjson.String(options.User)})
		if err != nil {
			return nil, err
		}
		members = append(members, rawjson.Member{Name: "customer_data", Value: customer})
	}
	return members, nil
}

// setWhereItIsFound sets members at the top, and if the parser finds others first, in the
// data member: in an envelope, what that has counts.
func setWhereItIsFound(payload []byte, want modelriver.Event, members []rawjson.Member) ([]byte, error) {
	isSet := func() bool {
		got, err := modelriver.ParseEvent(http.Header{}, payload)
		return err == nil && got.CallbackURL == want.CallbackURL && got.ChannelID == want.ChannelID &&
			got.Name == want.Name && got.UserID == want.UserID
	}
	var err error
	if len(members) > 0 {
		if payload, err = rawjson.SetMembers(payload, members...); err != nil {
			return nil, err
		}
	}
	if isSet() {
		return payload, nil
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(payload, &top); err != nil {
		return nil, err
	}
	data, err := rawjson.SetMembers(top["data"], members...)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	if payload, err = rawjson.SetMembers(payload, rawjson.Member{Name: "data", Value: data}); err != nil {
		return nil, err
	}
	if !isSet() {
		return nil, errors.New("the payload does not take what the flags ask for: use plain text for --channel, --event and --user")
	}
	return payload, nil
}
