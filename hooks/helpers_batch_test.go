package hooks

import (
	"fmt"
	"sync"
	"testing"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
)

// postTogether posts payloads so that they are of one batch, in this order.
func (s *testServer) postTogether(t testing.TB, payloads ...string) (statuses []int) {
	t.Helper()
	s.awaitOutbox(t)
	release := hold(s.plugin.commits)
	statuses = make([]int, len(payloads))
	var group sync.WaitGroup
	for i, payload := range payloads {
		group.Go(func() {
			var err error
			if statuses[i], _, err = s.tryPost(payload, nil); err != nil {
				t.Error(err)
			}
		})
		awaitWebhooks(t, s.plugin.commits, i+1)
	}
	release()
	group.Wait()
	return statuses
}

// hold keeps the committer from writing until it is called.
func hold(c *commit.Committer) (release func()) {
	began, held := make(chan struct{}), make(chan struct{})
	c.Add(&commit.Write{Run: func(core.App) error {
		close(began)
		<-held
		return nil
	}, Done: func(error) {}})
	<-began
	return func() { close(held) }
}

func awaitWebhooks(t testing.TB, c *commit.Committer, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d webhooks wait", n), func() bool {
		waiting := 0
		for _, w := range c.Waiting() {
			if w.Instead != nil { // not one of the outbox
				waiting++
			}
		}
		return waiting >= n
	})
}

func (s *testServer) awaitOutbox(t testing.TB) {
	t.Helper()
	eventually(t, "the outbox runs", func() bool {
		return s.plugin.outbox.Running()
	})
}

// counts counts by name.
type counts struct {
	mu sync.Mutex
	of map[string]int
}

func (c *counts) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[string]int{}
	}
	c.of[name]++
}

func (c *counts) get(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[name]
}
