package recovery

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A State is how the replica stands.
type State struct {
	URL     string    `json:"url"`
	Ack     string    `json:"ack"`
	Epoch   int       `json:"epoch"`
	Shipped time.Time `json:"shipped,omitzero"` // all that was committed then is in the replica; zero if it is not known yet
	Error   string    `json:"error"`            // why later changes are not, or empty
	Written time.Time `json:"written"`

	// Verified is what the last restore --verify found, on this machine; nil if there was none.
	Verified *Verified `json:"verified"`
}

// Verified is the outcome of a test of the replica.
type Verified struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"` // empty if all was well
}

const verifiedFile = "verified.json"

// State returns how the replica stands now, or nil if there is none.
func (r *Recovery) State() *State {
	if !r.Configured() {
		return nil
	}
	r.mu.Lock()
	state := r.state
	r.mu.Unlock()
	state.Verified = r.local.readVerified()
	return &state
}

// Lag returns how long ago all that was committed was in the replica.
func (s *State) Lag(now time.Time) time.Duration {
	if s.Shipped.IsZero() {
		return 0
	}
	return max(0, now.Sub(s.Shipped))
}

// UpToDate reports whether the replica has all, but for the last moment: it is written down every few
// seconds only.
func (s *State) UpToDate(now time.Time) bool {
	return s.Error == "" && !s.Shipped.IsZero() && s.Lag(now) < 2*stateEvery
}

// InWords tells in one line how the replica stands.
func (s *State) InWords(now time.Time) string {
	words := "not known since the start"
	if !s.Shipped.IsZero() {
		words = "has all up to " + s.Shipped.UTC().Format(time.RFC3339)
		if s.UpToDate(now) {
			words = "up to date"
		}
	}
	if s.Error != "" {
		words += "; failing: " + s.Error
	}
	switch v := s.Verified; {
	case v == nil:
		return words + "; never verified here"
	case v.Error != "":
		return words + "; could not be restored when verified " + v.At.UTC().Format(time.DateOnly) + ": " + v.Error
	default:
		return words + "; verified " + v.At.UTC().Format(time.DateOnly)
	}
}

// writeState writes down how the replica stands, for commands beside the server.
func (r *Recovery) writeState(now bool) {
	r.mu.Lock()
	state := r.state
	due := now || time.Since(state.Written) >= stateEvery
	if due {
		r.state.Written = time.Now()
		state.Written = r.state.Written
	}
	r.mu.Unlock()
	if !due {
		return
	}
	content, err := json.Marshal(state)
	if err != nil {
		return
	}
	path := filepath.Join(r.local.dir, stateFile) // not flushed: it is of no use after a crash
	if err := os.WriteFile(path+".new", content, 0o600); err == nil {
		_ = os.Rename(path+".new", path)
	}
}

// noteRefusal writes down why this server, which nobody runs beside, did not start.
func (r *Recovery) noteRefusal(err error) {
	before, _ := ReadState(r.local.dataDir)
	if before == nil || r.lock == nil {
		return
	}
	r.mu.Lock()
	r.state = *before
	r.state.Error = "the server did not start: " + err.Error()
	r.mu.Unlock()
	r.writeState(true)
}

// ReadState returns how the replica of a data directory stood last, or nil if it has none.
func ReadState(dataDir string) (*State, error) {
	l := newLocal(dataDir)
	content, err := os.ReadFile(filepath.Join(l.dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	state := &State{}
	_ = json.Unmarshal(content, state) // a crash may have left none of it, and then nothing is known
	state.Verified = l.readVerified()
	return state, nil
}

func (l local) readVerified() *Verified {
	content, err := os.ReadFile(filepath.Join(l.dir, verifiedFile))
	if err != nil {
		return nil
	}
	var verified Verified
	if json.Unmarshal(content, &verified) != nil {
		return nil
	}
	return &verified
}
