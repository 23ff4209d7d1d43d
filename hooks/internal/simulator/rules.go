package simulator

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// failedMessage is what the error tells when the AI fails.
const failedMessage = "All providers of the workflow failed. The simulator says so because it was asked to; nothing is broken."

// failures are what --fail can have a request answered in place of its channel, in the form
// of ModelRiver's API (https://modelriver.com/docs/api/error-handling), which does not
// tell of a 402.
var failures = []struct {
	way           string
	status        int
	kind, message string
	comesBack     bool // the answer says when to come again
}{
	{"401", http.StatusUnauthorized, "authentication_error", "The API key is missing or wrong", false},
	{"402", http.StatusPaymentRequired, "billing_error", "The project has no credit left", false},
	{"429", http.StatusTooManyRequests, "rate_limit_exceeded", "Too many requests", true},
	{"500", http.StatusInternalServerError, "server_error", "Something went wrong", false},
	{"503", http.StatusServiceUnavailable, "service_unavailable", "The service is unavailable", true},
	{"error", http.StatusOK, "upstream_error", failedMessage, false},
}

// failWays are what --fail takes.
func failWays() []string {
	var ways []string
	for _, failure := range failures {
		ways = append(ways, failure.way)
	}
	return append(ways, "cut")
}

// answerWays are what --answer takes.
var answerWays = []string{"early", "twice", "never", "error"}

// failRequest answers a request in one of the ways of failures.
func (s *simulator) failRequest(w http.ResponseWriter, way string) {
	for _, failure := range failures {
		if failure.way != way {
			continue
		}
		s.logRefused(fmt.Sprintf("%d: as --fail %s asks for", failure.status, way))
		if failure.comesBack {
			w.Header().Set("Retry-After", "1")
		}
		writeAPIError(w, failure.status, failure.kind, failure.message)
	}
}

// A rule has some requests go another way than usual.
type rule struct {
	way          string
	first, every int // of the requests; all of them if both are 0
}

// parseRule reads WAY, WAY:first=N or WAY:every=N.
func parseRule(text string, ways []string) (rule, error) {
	way, when, some := strings.Cut(text, ":")
	if !slices.Contains(ways, way) {
		return rule{}, fmt.Errorf("use one of %s", strings.Join(ways, ", "))
	}
	r := rule{way: way}
	if !some {
		return r, nil
	}
	name, value, _ := strings.Cut(when, "=")
	number, err := strconv.Atoi(value)
	switch {
	case err == nil && number > 0 && name == "first":
		r.first = number
	case err == nil && number > 0 && name == "every":
		r.every = number
	default:
		return rule{}, fmt.Errorf("write %s:first=2 for the first 2 requests, %[1]s:every=3 for each third, or %[1]s for all", way)
	}
	return r, nil
}

// fits reports whether the rule is for the request of that number, the first being 1.
func (r rule) fits(number int) bool {
	switch {
	case r.first > 0:
		return number <= r.first
	case r.every > 0:
		return number%r.every == 0
	}
	return true
}

// checkRules returns what is wrong with a flag's rules.
func checkRules(flag string, rules, ways []string) error {
	var problems []error
	for _, text := range rules {
		if _, err := parseRule(text, ways); err != nil {
			problems = append(problems, fmt.Errorf("%s %q: %w", flag, text, err))
		}
	}
	return errors.Join(problems...)
}

// fitting returns the ways of the rules, which were checked, that are for the request of
// that number.
func fitting(rules []string, number int) []string {
	var ways []string
	for _, text := range rules {
		way, _, _ := strings.Cut(text, ":")
		if r, _ := parseRule(text, []string{way}); r.fits(number) {
			ways = append(ways, way)
		}
	}
	return ways
}
