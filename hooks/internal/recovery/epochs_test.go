package recovery

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestEpochsBegin(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, ctx context.Context, b bucket) {
		if epochs, err := readEpochs(ctx, b); len(epochs) > 0 || err != nil {
			t.Fatalf("of a new replica: got %v, %v", epochs, err)
		}
		first, err := beginEpoch(ctx, b, 1, "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := beginEpoch(ctx, b, 1, "b", nil); !errors.Is(err, errExists) || !strings.Contains(err.Error(), "another server") {
			t.Errorf("a second owner: got %v", err)
		}
		if over, err := first.isOver(ctx, b); over || err != nil {
			t.Errorf("is over: got %t, %v", over, err)
		}
		second, err := beginEpoch(ctx, b, 2, "b", &position{Epoch: 1, TXID: 7})
		if err != nil {
			t.Fatal(err)
		}
		if over, err := first.isOver(ctx, b); !over || err != nil {
			t.Errorf("is over after the second began: got %t, %v", over, err)
		}
		epochs, err := readEpochs(ctx, b)
		if err != nil || len(epochs) != 2 || epochs[1].Owner != "b" || *epochs[1].From != *second.From || !epochs[0].Started.Equal(first.Started) {
			t.Errorf("got %+v, %v", epochs, err)
		}
		if err := first.isThere(ctx, b); err != nil {
			t.Errorf("is there: got %v", err)
		}
		err = b.Delete(ctx, []string{epochKey(1)})
		if err == nil {
			_, err = beginEpoch(ctx, b, 1, "a", nil) // a copy of the data directory, after the place was emptied
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := first.isThere(ctx, b); !errors.Is(err, errGone) {
			t.Errorf("is there after another began anew: got %v", err)
		}
	})
}

// Who mends an epoch by hand leaves what an editor does, and a tool that copies a bucket what stands for a folder. An
// epoch under another's number is damaged.
func TestOnlyEpochsAreRead(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, ctx context.Context, b bucket) {
		if _, err := beginEpoch(ctx, b, 1, "a", nil); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"0000000001.json~", "#0000000001.json#", "0000000002.json.bak", "1.json", "notes"} {
			if err := put(ctx, b, epochsDir+name, "{", false); err != nil {
				t.Fatal(err)
			}
		}
		if epochs, err := readEpochs(ctx, b); len(epochs) != 1 || err != nil {
			t.Errorf("got %+v, %v", epochs, err)
		}
		if err := put(ctx, b, epochKey(2), `{"epoch":1}`, false); err != nil {
			t.Fatal(err)
		}
		if epochs, err := readEpochs(ctx, b); err == nil || !strings.Contains(err.Error(), epochKey(2)+" is damaged") {
			t.Errorf("of another number: got %+v, %v", epochs, err)
		}
	})
}

func TestReplicaHasOneId(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, ctx context.Context, b bucket) {
		if id, err := readId(ctx, b); id != "" || err != nil {
			t.Errorf("of a new replica: got %q, %v", id, err)
		}
		id, err := makeId(ctx, b)
		if again, errAgain := makeId(ctx, b); id == "" || again != id || err != nil || errAgain != nil {
			t.Errorf("got %q, %v and %q, %v", id, err, again, errAgain)
		}
		if err := put(ctx, b, replicaKey, "{", false); err != nil {
			t.Fatal(err)
		}
		if _, err := readId(ctx, b); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("damaged: got %v", err)
		}
	})
}

// Whoever gives signs is heard, whatever the clocks say; who has ended, or gives none, is not.
func TestSilence(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, ctx context.Context, b bucket) {
		var said []string
		await := func(wait time.Duration) error {
			return awaitSilence(ctx, b, epoch{Number: 2}, wait, func(text string) { said = append(said, text) })
		}
		if err := await(50 * time.Millisecond); err != nil || len(said) != 1 {
			t.Errorf("no sign yet: got %v, %q", err, said)
		}
		alive := sign{Run: "r", Host: "other", Epoch: 2, Count: 1}
		if err := alive.put(ctx, b); err != nil {
			t.Fatal(err)
		}
		if err := await(50 * time.Millisecond); err != nil || len(said) != 2 {
			t.Errorf("silent: got %v, %q", err, said)
		}
		done := make(chan error)
		go func() { done <- await(time.Minute) }()
		for running := true; running; {
			select {
			case err := <-done:
				if !isRefusal(err) || !strings.Contains(err.Error(), "another server, on other") {
					t.Errorf("alive: got %v", err)
				}
				running = false
			case <-time.After(10 * time.Millisecond):
				alive.Count++
				if err := alive.put(ctx, b); err != nil {
					t.Fatal(err)
				}
			}
		}
		alive.Ended = true
		if err := alive.put(ctx, b); err != nil {
			t.Fatal(err)
		}
		if err := await(time.Hour); err != nil {
			t.Errorf("ended: got %v", err)
		}
		said = nil
		before := sign{Run: "s", Epoch: 1, Ended: true}
		if err := before.put(ctx, b); err != nil {
			t.Fatal(err)
		}
		if err := await(50 * time.Millisecond); err != nil || len(said) != 1 {
			t.Errorf("the one before has ended: got %v, %q", err, said)
		}
	})
}

// Where the epoch is not, nothing is written: the disk may not be mounted.
func TestSignsAreGivenWhereTheEpochIs(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, ctx context.Context, b bucket) {
		r := &Recovery{bucket: b, client: newEpochClient(b, epoch{}), local: newLocal(t.TempDir()), run: "r"}
		e, err := beginEpoch(ctx, b, 1, "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.client.begin(e)
		elsewhere := epoch{Number: 2, Owner: "another"}
		if err := r.signThere(ctx, elsewhere); err == nil {
			t.Error("no error where the epoch is not")
		}
		if s, err := readSign(ctx, b); err != nil || s.Epoch != 0 {
			t.Errorf("got %+v (%v), want no sign", s, err)
		}
		if err := r.signThere(ctx, e); err != nil {
			t.Error(err)
		}
		if s, err := readSign(ctx, b); err != nil || s.Epoch == 0 {
			t.Errorf("got %+v (%v), want a sign", s, err)
		}
	})
}

// What the server before gave is no other's sign, unless its data directory was copied since.
func TestOthersAreToldFromTheServerBefore(t *testing.T) {
	t.Parallel()
	here := place{Boot: "boot", Lock: "lock"}
	last := sign{Run: "r", Count: 7}
	for _, row := range []struct {
		name   string
		given  given
		goOn   bool
		others bool
	}{
		{"killed", given{last, here}, false, false},
		{"killed before it was given", given{sign{Run: "r", Count: 8}, here}, false, false},
		{"nothing is known", given{}, true, true},
		{"a copy", given{last, place{Boot: "boot", Lock: "another"}}, true, true},
		{"another has run since", given{sign{Run: "q", Count: 9}, here}, true, true},
		{"booted since, to go on", given{last, place{Boot: "before", Lock: "lock"}}, true, false},
		{"booted since, to begin an epoch", given{last, place{Boot: "before", Lock: "lock"}}, false, true},
		{"a machine's copy", given{sign{Run: "r", Count: 6}, place{Boot: "before", Lock: "lock"}}, true, true},
	} {
		next := takeOver
		if row.goOn {
			next = goOn
		}
		if before := row.given.before(here, last, next); before == row.others {
			t.Errorf("%s: got %t", row.name, before)
		}
	}
	unknown := place{Lock: "lock"} // of a machine that does not tell its boots apart
	if (given{last, unknown}).before(unknown, last, takeOver) {
		t.Error("without a boot's name: got true")
	}
}
