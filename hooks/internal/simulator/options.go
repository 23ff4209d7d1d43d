package simulator

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// Options say what [Run] does, named as the flags of its command.
type Options struct {
	Listen, Target, Scheme, Event string
	Delay, Every                  time.Duration
	Speed                         float64
	Count, Refuse                 int
	CacheFields, Fail, Answer     []string
}

// Validate returns why the options make no sense, or nil.
func (o Options) Validate() error {
	if host, _, err := net.SplitHostPort(o.Listen); err != nil || host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("--listen %q: use a loopback address such as 127.0.0.1:8787: it checks no one's rights but the key", o.Listen)
	}
	if u, err := url.Parse(o.Target); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("--target %q: use the URL where webhooks are received", o.Target)
	}
	if err := errors.Join(checkRules("--fail", o.Fail, failWays()), checkRules("--answer", o.Answer, answerWays)); err != nil {
		return err
	}
	switch {
	case !slices.Contains(modelriver.Schemes(), o.Scheme):
		return fmt.Errorf("--scheme %q: use one of %s", o.Scheme, strings.Join(modelriver.Schemes(), ", "))
	case o.Speed <= 0:
		return errors.New("--speed: use a number above 0")
	case o.Delay < 0 || o.Every < 0:
		return errors.New("--delay and --every: a duration cannot be negative")
	case o.Count < 0 || o.Refuse < 0:
		return errors.New("--count and --refuse-callbacks: a number cannot be negative")
	case o.Count > 0 && o.Every == 0:
		return errors.New("--count: it is how many requests --every makes, so give that too")
	}
	return nil
}
