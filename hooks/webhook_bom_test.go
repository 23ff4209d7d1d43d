package hooks

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A byte order mark is signed as it was sent, and is no part of what is kept.
func TestWebhookWithAByteOrderMark(t *testing.T) {
	t.Parallel()
	for _, scheme := range modelriver.Schemes() {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			s := newTestServer(t, testConfig())
			refuse := s.OnRecordCreate(store.Content).BindFunc(func(*core.RecordEvent) error { return errors.New("not here") })
			payload := envelope("c1", rec.callbackURL("c1"))
			body := "\ufeff" + payload
			send := func() {
				t.Helper()
				header := http.Header{}
				if err := modelriver.Sign(header, scheme, testSecret, time.Now(), []byte(body)); err != nil {
					t.Fatal(err)
				}
				if status, answer := s.post(t, body, header); status != 200 {
					t.Fatalf("answer: got %d %s, want 200", status, answer)
				}
			}
			send()
			row := awaitState(t, s, store.Failed)
			if got := row.GetString("payload"); got != payload {
				t.Errorf("kept: got %q, want the payload without the mark", got)
			}
			s.OnRecordCreate(store.Content).Unbind(refuse)
			send()
			awaitState(t, s, store.Delivered)
			if got := only(t, s, store.Content).GetString("data"); got != `{"title":"T","n":1.0}` {
				t.Errorf("data: got %s", got)
			}
			callbacks := rec.all()
			if got := callbacks[len(callbacks)-1].body; !strings.HasPrefix(got, `{"data":{"title":"T","n":1.0,"id":`) {
				t.Errorf("callback: got %s", got)
			}
		})
	}
	t.Run("and nothing else", func(t *testing.T) {
		t.Parallel()
		s := newTestServer(t, testConfig())
		for _, body := range []string{"\ufeff", "\ufeff\ufeff{}", "\ufeff[]", "{}\ufeff"} {
			if status, answer := s.post(t, body, nil); status != 400 {
				t.Errorf("%q: got %d %s, want 400", body, status, answer)
			}
		}
	})
}
