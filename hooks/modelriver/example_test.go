package modelriver_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A complete handler for ModelRiver's webhooks. Store an event under its channel id,
// type and name before you answer: ModelRiver sends one again until it gets a 2xx.
func ExampleVerifier() {
	verifier, err := modelriver.NewVerifier("whsec_current", "whsec_previous")
	if err != nil {
		fmt.Println(err) // no secret, or a blank one
		return
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 5<<20))
		if err != nil {
			http.Error(w, `{"error":"Payload too large"}`, http.StatusRequestEntityTooLarge)
			return
		}
		if err := verifier.Verify(r.Header, payload); err != nil {
			http.Error(w, `{"error":"Invalid signature"}`, http.StatusUnauthorized)
			return
		}
		event, err := modelriver.ParseEvent(r.Header, payload)
		if err != nil {
			http.Error(w, `{"error":"Invalid JSON"}`, http.StatusBadRequest)
			return
		}
		if event.Stores() {
			fmt.Printf("store %s for %q\n", event.Data, event.ChannelID)
		}
		fmt.Fprint(w, `{"received":true}`)
	})

	payload := `{"type":"task.completed","channel_id":"c1","data":{"title":"Inception"}}`
	for _, secret := range []string{"whsec_previous", "guessed"} {
		request := httptest.NewRequest(http.MethodPost, "/webhooks/modelriver", strings.NewReader(payload))
		if err := modelriver.Sign(request.Header, "body", secret, time.Now(), []byte(payload)); err != nil {
			fmt.Println(err)
			return
		}
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, request)
		fmt.Println(response.Code, strings.TrimSpace(response.Body.String()))
	}
	// Output:
	// store {"title":"Inception"} for "c1"
	// 200 {"received":true}
	// 401 {"error":"Invalid signature"}
}

// Sign a payload as ModelRiver would, to try out a receiver.
func ExampleSign() {
	payload := []byte(`{"data":{"a":1}}`)
	for _, scheme := range modelriver.Schemes() {
		header := http.Header{}
		if err := modelriver.Sign(header, scheme, "secret", time.Unix(1767616496, 0), payload); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(scheme)
		for _, name := range []string{modelriver.HeaderSignature, modelriver.HeaderXSignature, modelriver.HeaderXTimestamp} {
			if value := header.Get(name); value != "" {
				fmt.Printf("  %s: %s\n", name, value)
			}
		}
	}
	// Output:
	// body
	//   mr-signature: 216731b113389b23a1902e388883ff9a40ab4ad62c72dcbafbfadc63a5e8e6a0
	// data
	//   X-ModelRiver-Signature: db50b2648251560091461ca096ee3432161fe49d70c7fd6f2354b2fa33521cc8
	//   X-ModelRiver-Timestamp: 1767616496
	// timestamped-body
	//   X-ModelRiver-Signature: 5ac39dbd98800f19fdd3978b2c524d306dac11e2dec2982ab8ae0a3c55aabccb
	//   X-ModelRiver-Timestamp: 1767616496
}

func ExampleParseEvent() {
	event, err := modelriver.ParseEvent(nil, []byte(`{
		"type": "task.ai_generated",
		"event": "new_movie_suggestion",
		"channel_id": "550e8400-e29b-41d4-a716-446655440000",
		"ai_response": {"data": {"title": "Inception", "rating": 8.80}},
		"callback_url": "https://api.modelriver.com/v1/callback/550e8400-e29b-41d4-a716-446655440000",
		"customer_data": {"user_id": "user_456"}
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(event.Stores(), event.Name, event.UserID)
	fmt.Println(event.Title)
	fmt.Printf("%s\n", event.Data)
	// Output:
	// true new_movie_suggestion user_456
	// Inception
	// {"title": "Inception", "rating": 8.80}
}
