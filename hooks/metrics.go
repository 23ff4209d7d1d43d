package hooks

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/pocketriver/pocketriver/hooks/internal/recovery"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// minMetricsToken is how many characters Config.MetricsToken has at least.
const minMetricsToken = 16

// requireMetricsAuth lets the bearer of the metrics' token pass, and superusers.
func (p *plugin) requireMetricsAuth(e *core.RequestEvent) error {
	scheme, token := "Bearer ", e.Request.Header.Get("Authorization")
	if wanted := p.config.MetricsToken; wanted != "" && len(token) > len(scheme) && strings.EqualFold(token[:len(scheme)], scheme) {
		given, expected := sha256.Sum256([]byte(token[len(scheme):])), sha256.Sum256([]byte(wanted))
		if subtle.ConstantTimeCompare(given[:], expected[:]) == 1 {
			return e.Next()
		}
	}
	return apis.RequireSuperuserAuth().Func(e)
}

// handleMetrics answers with the figures in Prometheus' text format.
func (p *plugin) handleMetrics(e *core.RequestEvent) error {
	now := p.outbox.Now()
	scrape := &scrape{now: now, versions: p.versions, rejected: p.rejected.sinceStart(), replica: p.recovery.State(), nodes: p.config.nodes()}
	var err error
	if scrape.all, err = store.ReadAll(e.App, now, time.Time{}, p.config.CallbackWindow, nil); err != nil {
		return e.InternalServerError("The figures could not be read.", err)
	}
	if scrape.ends, err = store.ReadEnds(e.App); err != nil {
		return e.InternalServerError("The newest and oldest rows could not be read.", err)
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(scrape); err != nil {
		return e.InternalServerError("The metrics could not be told.", err)
	}
	families, err := registry.Gather()
	if err != nil {
		return e.InternalServerError("The metrics could not be told.", err)
	}
	var text bytes.Buffer
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	encoder := expfmt.NewEncoder(&text, format)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return e.InternalServerError("The metrics could not be told.", err)
		}
	}
	return e.Blob(http.StatusOK, string(format), text.Bytes())
}

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("modelriver_"+name, help, labels, nil)
}

// The metrics. What is read from the tables is a gauge: rows are deleted, by Retention and by
// hand, and set back. Only what the process itself counts never goes down.
var (
	rejectedTotal   = newDesc("webhooks_rejected_total", "Webhooks answered with an error unread, since the server started, by reason.", "reason")
	webhooks        = newDesc("webhooks", "Webhooks that are kept, by what became of them: stored or refused.", "state")
	lastReceived    = newDesc("webhook_last_received_timestamp_seconds", "When the last webhook was stored or refused.")
	callbacks       = newDesc("callbacks", "Callbacks that are kept, by state: pending, delivered or failed.", "state")
	oldestPending   = newDesc("callback_oldest_pending_seconds", "How long ago the webhook came whose callback has been pending for longest; 0 if none is.")
	callbackMedian  = newDesc("callback_median_seconds", "Median time from a webhook to its accepted callback, of the latest 1000 within their window.")
	callbackP95     = newDesc("callback_p95_seconds", "95th percentile of the time from a webhook to its accepted callback, of the latest 1000 within their window.")
	requestsByState = newDesc("requests", "Requests that are kept, by state: open, answered or failed.", "state")
	replicaLag      = newDesc("replica_lag_seconds", "How long ago the replica had all that was committed; only with REPLICA_URL, and once it had.")
	replicaFailing  = newDesc("replica_failing", "1 while changes do not get to the replica, else 0; only with REPLICA_URL.")
	replicaEpoch    = newDesc("replica_epoch", "The epoch in which this server writes to the replica; only with REPLICA_URL.")
	replicaVerified = newDesc("replica_verified_timestamp_seconds", "When restore --verify found the replica whole, if that was its last outcome.")
	nodeReached     = newDesc("node_reached", "1 if the node answers the one that tells this, else 0; only of several nodes.", "node")
	nodeLeads       = newDesc("node_leads", "1 if the node leads, else 0; only of several nodes.", "node")
	nodePosition    = newDesc("node_position", "How far the node's database has come in the log; only of several nodes.", "node")
	nodeLag         = newDesc("node_lag_seconds", "How long ago the node had all of the log; only of several nodes.", "node")
	nodeClock       = newDesc("node_clock_seconds", "What the node's clock is ahead of that of the one that tells this; only of several nodes.", "node")
	nodeDiffers     = newDesc("node_differences", "How many things are not as on the node that tells this, its clock too; only of several nodes.", "node")
	buildInfo       = newDesc("build_info", "Always 1, labeled with the versions of PocketRiver and PocketBase.", "version", "pocketbase")
)

// A scrape is what one request for metrics is answered with.
type scrape struct {
	now      time.Time
	all      store.All
	ends     store.Ends
	rejected map[string]int
	replica  *recovery.State
	nodes    []NodeState
	versions versions
}

// Describe tells no metric in advance: Collect knows which there are.
func (s *scrape) Describe(chan<- *prometheus.Desc) {}

func (s *scrape) Collect(metrics chan<- prometheus.Metric) {
	tell := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for _, reason := range store.RejectedFor {
		metrics <- prometheus.MustNewConstMetric(rejectedTotal, prometheus.CounterValue, float64(s.rejected[reason]), reason)
	}
	tell(webhooks, float64(s.all.Stored), "stored")
	tell(webhooks, float64(s.all.Refused), "refused")
	if last := s.ends.LastReceived; last != nil {
		tell(lastReceived, float64(last.Time().UnixMilli())/1000)
	}
	tell(callbacks, float64(s.all.Waiting), store.Pending)
	tell(callbacks, float64(s.all.Delivered), store.Delivered)
	tell(callbacks, float64(s.all.Failed), store.Failed)
	waiting := 0.0
	if oldest := s.ends.OldestWaiting; oldest != nil {
		waiting = max(0, s.now.Sub(oldest.Created.Time()).Seconds())
	}
	tell(oldestPending, waiting)
	for desc, milliseconds := range map[*prometheus.Desc]*int64{callbackMedian: s.all.Median, callbackP95: s.all.P95} {
		if milliseconds != nil {
			tell(desc, float64(*milliseconds)/1000)
		}
	}
	tell(requestsByState, float64(s.all.Requests.Open), "open")
	tell(requestsByState, float64(s.all.Requests.Answered), store.Answered)
	tell(requestsByState, float64(s.all.Requests.Failed), store.Failed)
	s.tellReplica(tell)
	s.tellNodes(tell)
	tell(buildInfo, 1, s.versions.PocketRiver, s.versions.PocketBase)
}

func (s *scrape) tellReplica(tell func(desc *prometheus.Desc, value float64, labels ...string)) {
	if s.replica == nil {
		return
	}
	tell(replicaFailing, oneIf(s.replica.Error != ""))
	tell(replicaEpoch, float64(s.replica.Epoch))
	if !s.replica.Shipped.IsZero() {
		tell(replicaLag, s.replica.Lag(s.now).Seconds())
	}
	if verified := s.replica.Verified; verified != nil && verified.Error == "" {
		tell(replicaVerified, float64(verified.At.UnixMilli())/1000)
	}
}

// tellNodes tells of a node that isn't reached only that, and by how much it lags.
func (s *scrape) tellNodes(tell func(desc *prometheus.Desc, value float64, labels ...string)) {
	for _, n := range s.nodes {
		tell(nodeReached, oneIf(n.Reached), n.Name)
		tell(nodeLeads, oneIf(n.Leads), n.Name)
		if n.Position > 0 {
			tell(nodeLag, n.LagSeconds, n.Name)
		}
		if n.Reached {
			tell(nodePosition, float64(n.Position), n.Name)
			tell(nodeClock, n.ClockSeconds, n.Name)
			tell(nodeDiffers, float64(len(n.Differs)), n.Name)
		}
	}
}

func oneIf(condition bool) float64 {
	if condition {
		return 1
	}
	return 0
}
