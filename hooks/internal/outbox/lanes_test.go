package outbox

import (
	"fmt"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// However a callback leaves the memory, the table is looked at again when there is room.
func TestWokenWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(o *Outbox, cb *store.Callback){
		"it was sent":      func(o *Outbox, cb *store.Callback) { o.release(cb) },
		"it was withdrawn": func(o *Outbox, cb *store.Callback) { o.withdraw(cb.Id) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := New(nil, nil, nil, Options{})
			o.running = true
			var all []*store.Callback
			for i := range MaxHeld/2 + 1 {
				cb := &store.Callback{Id: fmt.Sprint(i), Host: "host"}
				if !o.reserve(cb) {
					t.Fatal("no room")
				}
				all = append(all, cb)
			}
			o.lanes["host"].waiting = all
			leave(o, all[1])
			select {
			case <-o.callbacks.wake:
			default:
				t.Error("it isn't woken")
			}
			if got := o.Held(); got != MaxHeld/2 {
				t.Errorf("held: got %d", got)
			}
		})
	}
}
