package recovery

import (
	"os"
	"path/filepath"
	"testing"
)

// How the replica stands is not flushed: what a power failure leaves of it keeps no command from its work.
func TestStateThatACrashLeft(t *testing.T) {
	t.Parallel()
	l := newLocal(t.TempDir())
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"", "\x00\x00", `{"epoch":1`} {
		if err := os.WriteFile(filepath.Join(l.dir, stateFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if state, err := ReadState(l.dataDir); state == nil || *state != (State{}) || err != nil {
			t.Errorf("%q: got %+v, %v", content, state, err)
		}
	}
}
