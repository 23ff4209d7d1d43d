package tests

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// A tab is a page in a real Chromium.
type tab struct {
	t   testing.TB
	ctx context.Context

	started bool // by the first call

	mu       sync.Mutex
	problems []string // console errors, exceptions, refused by the content policy
	network  []string // failed requests, as the console tells of them
	requests []string // "METHOD path?query"
}

// openTab starts a Chromium of its own, which ends with the test, and opens url.
func openTab(t testing.TB, url string) *tab {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
	)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, _ := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Log("closing the browser:", err)
		}
	})
	return newTab(t, ctx, url)
}

// Another opens url in a second tab of the same browser, with the same storage.
func (p *tab) Another(url string) *tab {
	p.t.Helper()
	ctx, cancel := chromedp.NewContext(p.ctx)
	p.t.Cleanup(cancel)
	return newTab(p.t, ctx, url)
}

// openFront opens url in another tab of the same window, which hides the others.
func (p *tab) openFront(url string) *tab {
	p.t.Helper()
	ctx, cancel := chromedp.NewContext(p.ctx, chromedp.WithNewWindow(false))
	p.t.Cleanup(cancel)
	return newTab(p.t, ctx, url)
}

// Show brings the tab to the front of its window.
func (p *tab) Show() {
	p.t.Helper()
	callDevTools(p, page.BringToFront, cdp.Empty{})
	p.Wait("!document.hidden")
}

func newTab(t testing.TB, ctx context.Context, url string) *tab {
	t.Helper()
	p := &tab{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, p.listen); err != nil {
		t.Fatal(err)
	}
	callDevTools(p, network.Enable, network.EnableParams{})
	p.Open(url)
	return p
}

func (p *tab) listen(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		_, rest, _ := strings.Cut(e.Request.URL, "://")
		if at := strings.Index(rest, "/"); at >= 0 {
			p.requests = append(p.requests, e.Request.Method+" "+rest[at:])
		}
	case *log.EventEntryAdded:
		text := fmt.Sprintf("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
		if e.Entry.Source == "network" {
			p.network = append(p.network, text)
		} else if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			p.problems = append(p.problems, text)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" || e.Type == "assert" {
			var text []string
			for _, argument := range e.Args {
				text = append(text, string(argument.Value)+argument.Description)
			}
			p.problems = append(p.problems, "console: "+strings.Join(text, " "))
		}
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		p.problems = append(p.problems, text)
	}
}

// callDevTools runs a command of the DevTools protocol.
func callDevTools[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	if !p.started { // the first call starts the tab, which lives as long as its context
		p.started = true
		cancel()
		ctx, cancel = p.ctx, func() {}
	}
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	if err != nil {
		p.t.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

// runAction runs an action in the tab and returns its value.
func runAction[T any](p *tab, action chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	result, err := chromedp.Run(ctx, action)
	if err != nil {
		p.t.Fatalf("%v\n%s", err, p.report())
	}
	return result
}

// eval returns the value of a JavaScript expression, or what its promise resolves to.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	return runAction(p, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// Open opens url in the tab.
func (p *tab) Open(url string) {
	p.t.Helper()
	runAction(p, chromedp.Navigate(url))
}

// Wait waits until the JavaScript expression is true.
func (p *tab) Wait(expression string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if eval[bool](p, "!!("+expression+")") {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("never true: %s\n%s", expression, p.report())
		}
	}
}

// Click clicks the first element that matches, as a person would.
func (p *tab) Click(selector string) {
	p.t.Helper()
	runAction(p, chromedp.Click(chromedp.CSS(selector)))
}

// Type types text into the first element that matches.
func (p *tab) Type(selector, text string) {
	p.t.Helper()
	runAction(p, chromedp.SendKeys(chromedp.CSS(selector), text))
}

// Offline cuts the tab's network, or gives it back.
func (p *tab) Offline(offline bool) {
	p.t.Helper()
	callDevTools(p, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
		MatchedNetworkConditions: []*network.Conditions{{Offline: offline, DownloadThroughput: -1, UploadThroughput: -1}},
	})
	callDevTools(p, network.OverrideNetworkState, network.OverrideNetworkStateParams{
		Offline: offline, DownloadThroughput: -1, UploadThroughput: -1,
	})
}

// Media sets media features, such as "prefers-color-scheme", "dark".
func (p *tab) Media(pairs ...string) {
	p.t.Helper()
	var features []*emulation.MediaFeature
	for pair := range slices.Chunk(pairs, 2) {
		features = append(features, &emulation.MediaFeature{Name: pair[0], Value: pair[1]})
	}
	callDevTools(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
}

// Size sets the size of the window.
func (p *tab) Size(width, height int64) {
	p.t.Helper()
	runAction(p, chromedp.EmulateViewport(width, height))
}

// Screenshot writes what the tab shows to name in the folder that SCREENSHOTS names, if
// it does.
func (p *tab) Screenshot(name string) {
	p.t.Helper()
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), runAction(p, chromedp.CaptureScreenshot()), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// Requests returns how many requests of the tab contain part, as "METHOD path?query".
func (p *tab) Requests(part string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, request := range p.requests {
		if strings.Contains(request, part) {
			n++
		}
	}
	return n
}

// Clean fails the test if the tab's console has an error or warning. Failed requests
// count only if the network and the server were there all the time.
func (p *tab) Clean(connected bool) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, problem := range p.problems {
		p.t.Error(problem)
	}
	for _, problem := range p.network {
		if connected {
			p.t.Error(problem)
		}
	}
}

// report is what a failed test tells of the tab.
func (p *tab) report() string {
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body?.innerText ?? ''"))
	p.mu.Lock()
	defer p.mu.Unlock()
	requests := p.requests[max(0, len(p.requests)-20):]
	return fmt.Sprintf("problems: %q\nnetwork: %q\nlast requests: %q\npage: %s", p.problems, p.network, requests, text)
}
