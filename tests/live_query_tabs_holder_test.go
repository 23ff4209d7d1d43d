package tests

import (
	"fmt"
	"testing"
)

// TestTabsGoOnWithoutTheHolder closes tabs that have the stream, in a good way and in a bad one.
// The latter has told by then what it has heard: nobody goes on from what the server has sent by
// an earlier set of topics. That set is another as soon as the first tab is closed.
func TestTabsGoOnWithoutTheHolder(t *testing.T) {
	t.Parallel()
	s, token, tabs := startTabs(t, (*tab).WithoutTicks)
	tabs = append(tabs, harnessBeside(tabs[0], s.URL))
	tabs[3].Live(`"own", {limit: 3}`)
	converge(tabs...)
	lists := requestsOf(aList, tabs...)
	for i, vanish := range []bool{false, true} {
		tabs[i].Close(vanish)
		s.create(token, fmt.Sprint("Without holder ", i), "a", "")
		showsFirst(fmt.Sprint("Without holder ", i), tabs[i+1:]...)
		if n := requestsOf(aStream, tabs...); n != i+2 {
			t.Errorf("streams: got %d, want %d", n, i+2)
		}
		for _, p := range tabs[i+1:] {
			p.Wait(fmt.Sprintf("place() === %d", i+1))
		}
	}
	converge(tabs[2:]...)
	if n := requestsOf(aList, tabs...) - lists; n != 0 {
		t.Errorf("lists after the first: got %d, want none", n)
	}
}

// TestTabsKnowMoreThanTheNextHolder closes the tab that has the stream when the next one was not
// told yet of an event that another shows.
func TestTabsKnowMoreThanTheNextHolder(t *testing.T) {
	t.Parallel()
	s, token, tabs := startTabs(t, func(p *tab) {
		p.WithoutTicks()
		eval[bool](p, `(window.deaf = false, window.BroadcastChannel = class extends BroadcastChannel {
			set onmessage(run) {
				super.onmessage = (event) => deaf && event.data.topic || run(event);
			}
		}, true)`)
	})
	lists := requestsOf(aList, tabs...)
	eval[bool](tabs[1], `window.deaf = true`)
	s.create(token, "Known to one", "a", "")
	showsFirst("Known to one", tabs[2])
	tabs[2].Wait("place() === 1")
	if n := eval[int](tabs[1], "place()"); n != 0 {
		t.Fatalf("the next holder knows place %d, want 0", n)
	}
	tabs[0].Close(false)
	s.create(token, "Known to all", "a", "")
	showsFirst("Known to all", tabs[1:]...)
	converge(tabs[1:]...)
	if n := requestsOf(aList, tabs...) - lists; n != 0 {
		t.Errorf("lists after the first: got %d, want none", n)
	}
}

// WithoutTicks has the harness look after nothing by and by: neither does that make up for what
// was not told, nor is the server asked just when a tab vanishes that would tell the answer.
func (p *tab) WithoutTicks() {
	p.t.Helper()
	eval[bool](p, `(window.setInterval = () => 1, true)`)
}
