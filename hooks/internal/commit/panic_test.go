package commit

import (
	"errors"
	"testing"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// A panic where a write ends is nobody else's.
func TestCommitterSurvivesPanics(t *testing.T) {
	t.Parallel()
	c := New(apptest.NewApp(t), "aiContent")
	run := func(core.App) error { return nil }
	settled := make(chan struct{}, 100)
	c.Committed = func([]*core.Record) { panic("committed") }
	c.Settled = func([]*core.Record) {
		settled <- struct{}{}
		panic("settled")
	}
	release := hold(c)
	results := make(chan error, 10)
	for _, w := range []*Write{
		{Run: run, Done: func(error) { panic("done") }},
		{Run: func(core.App) error { return errors.New("refused") }, Done: func(error) { panic("done of a failed one") }},
		{Run: func(tx core.App) error {
			tx.TxInfo().OnComplete(func(error) error { panic("OnComplete") })
			return nil
		}, Done: func(error) {}},
		{Run: run, Done: func(err error) { results <- err }},
	} {
		c.Add(w)
	}
	release()
	if err := <-results; err != nil {
		t.Errorf("the last one: %v", err)
	}
	<-settled
	for name, w := range map[string]*Write{
		"done alone":         {Run: run, Done: func(error) { panic("done") }},
		"done of a failure":  {Run: func(core.App) error { return errors.New("refused") }, Done: func(error) { panic("done") }},
		"OnComplete alone":   {Run: func(tx core.App) error { tx.TxInfo().OnComplete(func(error) error { panic("OnComplete") }); return nil }, Done: func(error) {}},
		"instead":            {Run: func(core.App) error { return errors.New("refused") }, Instead: func(core.App, error) error { panic("instead") }, Done: func(error) {}},
		"what waits in vain": {Run: run, Done: func(error) { panic("done") }},
	} {
		c.Add(w)
		if err := c.Do(run); err != nil {
			t.Errorf("after a panic in %s: %v", name, err)
		}
	}
}
