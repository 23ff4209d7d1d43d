package simulator

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/google/uuid"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/sync/errgroup"
)

// A tally is what became of many webhooks.
type tally struct {
	mu       sync.Mutex
	answers  []time.Duration
	outcomes map[string]int
	sent     map[string]time.Time // by channel
	problem  error                // the first
}

// sendMany posts options.Count webhooks and sums up what comes back.
func (d *dispatch) sendMany(ctx context.Context, payload []byte) error {
	posts := "once"
	if d.options.Duplicate {
		posts = "twice"
	}
	fmt.Fprintf(d.out, "POST %s, %d webhooks %s, %d at a time, signed in scheme %q\n",
		d.URL, d.options.Count, posts, d.options.Concurrency, d.Scheme)
	started := time.Now()
	t := &tally{outcomes: map[string]int{}, sent: make(map[string]time.Time, d.options.Count)}
	if err := d.postMany(ctx, payload, t); err != nil {
		return err
	}
	took := time.Since(started)
	fmt.Fprintf(d.out, "%d webhooks in %s, %.0f per second\n", len(t.sent), took.Round(time.Millisecond), float64(len(t.sent))/took.Seconds())
	for _, outcome := range slices.Sorted(maps.Keys(t.outcomes)) {
		fmt.Fprintf(d.out, "  %-24s %d\n", outcome, t.outcomes[outcome])
	}
	fmt.Fprintf(d.out, "  answers    %s\n", quantiles(t.answers))
	if d.receiver == nil || d.Tamper || t.problem != nil {
		return t.problem
	}
	return d.awaitCallbacks(ctx, t)
}

// postMany posts the webhooks, as many at a time and per second as the options say.
func (d *dispatch) postMany(ctx context.Context, payload []byte, t *tally) error {
	bar := progressbar.DefaultSilent(int64(d.options.Count))
	if d.options.Progress {
		bar = progressbar.NewOptions(d.options.Count,
			progressbar.OptionSetWriter(d.out), progressbar.OptionSetWidth(30), progressbar.OptionShowCount(),
			progressbar.OptionSetDescription("sending"), progressbar.OptionClearOnFinish(),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetElapsedTime(false))
	}
	started := time.Now()
	var group errgroup.Group
	group.SetLimit(d.options.Concurrency)
	for i := range d.options.Count {
		if d.options.Rate > 0 {
			due := started.Add(time.Duration(float64(i) / d.options.Rate * float64(time.Second)))
			sleep(ctx, time.Until(due))
		}
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			defer bar.Add(1)
			return d.postOneOfMany(ctx, i, payload, t)
		})
	}
	err := group.Wait()
	bar.Finish()
	if err != nil {
		return err
	}
	return ctx.Err()
}

func (d *dispatch) postOneOfMany(ctx context.Context, i int, payload []byte, t *tally) error {
	own := d.options
	own.Channel = uuid.NewString()
	from := payload
	if from == nil {
		from = contentPayload(i)
	}
	prepared, err := preparePayload(from, payload == nil, own, d.receiver)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.sent[own.Channel] = time.Now()
	t.mu.Unlock()
	posts := 1
	if d.options.Duplicate {
		posts = 2
	}
	for range posts {
		a, err := d.Post(ctx, prepared, nil)
		d.note(t, a, err)
	}
	return nil
}

func (d *dispatch) note(t *tally, a Answer, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.answers = append(t.answers, a.Took)
		t.outcomes[fmt.Sprintf("%d %s", a.Status, http.StatusText(a.Status))]++
		err = d.check(a)
	} else {
		t.outcomes["no answer"]++
	}
	if t.problem == nil {
		t.problem = err
	}
}

// awaitCallbacks waits for as long as callbacks keep coming.
func (d *dispatch) awaitCallbacks(ctx context.Context, t *tally) error {
	first := map[string]time.Duration{}
	repeated := 0
	for len(first) < len(t.sent) {
		received, err := d.receiver.wait(ctx, d.options.Wait)
		if err != nil {
			return err
		}
		if received == nil {
			break
		}
		if _, again := first[received.channel]; again {
			repeated++
			continue
		}
		if at, ours := t.sent[received.channel]; ours {
			first[received.channel] = received.at.Sub(at)
		}
	}
	if d.options.Duplicate {
		again, err := d.receiver.wait(ctx, min(d.options.Wait, 2*time.Second))
		if err != nil {
			return err
		}
		if again != nil {
			repeated++
		}
	}
	fmt.Fprintf(d.out, "  callbacks  %d of %d, %s after the webhook was sent\n", len(first), len(t.sent), quantiles(slices.Collect(maps.Values(first))))
	switch {
	case len(first) < len(t.sent):
		return fmt.Errorf("%s did not come within %s of the last one: the server must run with MODELRIVER_API_KEY, and with 127.0.0.1 in MODELRIVER_CALLBACK_HOSTS",
			english.Plural(len(t.sent)-len(first), "callback", ""), d.options.Wait)
	case repeated > 0:
		return fmt.Errorf("%s came twice", english.Plural(repeated, "callback", ""))
	}
	return nil
}

// quantiles sums up durations.
func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	slices.Sort(d)
	at := func(q float64) time.Duration { return d[int(q*float64(len(d)-1)+0.5)].Round(precision) }
	return fmt.Sprintf("p50 %s, p99 %s, max %s", at(0.50), at(0.99), at(1))
}
