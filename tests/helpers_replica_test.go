package tests

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// A replicaStore is where servers ship to: a folder, or a bucket whose faults can be set.
type replicaStore struct {
	env   []string
	fault atomic.Pointer[storeFault]
}

// set has the store of a bucket answer as the fault does from now on.
func (s *replicaStore) set(fault storeFault) { s.fault.Store(&fault) }

// A storeFault answers a request to a store, by what the store answers or without it.
type storeFault func(w http.ResponseWriter, r *http.Request, s3 http.Handler)

func storeIsWell(w http.ResponseWriter, r *http.Request, s3 http.Handler) { s3.ServeHTTP(w, r) }

func storeCuts(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	if connection, _, err := w.(http.Hijacker).Hijack(); err == nil {
		connection.Close()
	}
}

func storeFails(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	http.Error(w, "<Error><Code>InternalError</Code></Error>", http.StatusInternalServerError)
}

func storeRefuses(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	http.Error(w, "<Error><Code>AccessDenied</Code></Error>", http.StatusForbidden)
}

func storeIsSlow(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
	select {
	case <-time.After(5 * time.Second):
	case <-r.Context().Done():
	}
	s3.ServeHTTP(w, r)
}

// storeLosesAnswers does what it is asked, and its answer does not arrive.
func storeLosesAnswers(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
	s3.ServeHTTP(httptest.NewRecorder(), r)
	storeCuts(w, r, s3)
}

// storeCutsHalfway lets half of what is sent to it through, or half of its answer.
func storeCutsHalfway(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
	answer := httptest.NewRecorder()
	if r.ContentLength > 0 {
		r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, r.ContentLength/2), iotest.ErrReader(io.ErrUnexpectedEOF)))
		s3.ServeHTTP(answer, r)
	} else {
		s3.ServeHTTP(answer, r)
		maps.Copy(w.Header(), answer.Header())
		w.Header().Set("Content-Length", strconv.Itoa(answer.Body.Len()))
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes()[:answer.Body.Len()/2])
		w.(http.Flusher).Flush()
	}
	storeCuts(w, r, s3)
}

// storeIsUnsteady does to some requests what the others do to all.
func storeIsUnsteady(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
	faults := []storeFault{storeCuts, storeFails, storeIsSlow, storeLosesAnswers, storeCutsHalfway}
	if n := rand.IntN(100); n < len(faults) {
		faults[n](w, r, s3)
		return
	}
	s3.ServeHTTP(w, r)
}

func newFolderStore(t testing.TB) *replicaStore {
	t.Helper()
	return &replicaStore{env: []string{"REPLICA_URL=file://" + filepath.Join(t.TempDir(), "replica")}}
}

var versitygw = flag.String("versitygw", "", "the path of versitygw, which buckets are of then (default: an S3 server of this process)")

// newS3 returns an S3 server with a bucket.
func newS3(t testing.TB) http.Handler {
	t.Helper()
	if *versitygw == "" {
		backend := s3mem.New()
		if err := backend.CreateBucket("bucket"); err != nil {
			t.Fatal(err)
		}
		return gofakes3.New(backend, gofakes3.WithTimeSkewLimit(0), gofakes3.WithLogger(gofakes3.DiscardLog())).Server()
	}
	address, said := freeAddress(t), &output{}
	cmd := exec.Command(*versitygw, "--quiet", "--access", "a-key-id", "--secret", "a-secret-key", "--port", address, "posix", t.TempDir())
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	client, err := minio.New(address, &minio.Options{Creds: credentials.NewStaticV4("a-key-id", "a-secret-key", ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "versitygw has a bucket", func() bool {
		err = client.MakeBucket(t.Context(), "bucket", minio.MakeBucketOptions{})
		return err == nil
	})
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: address})
			r.Out.Host = r.In.Host // which is signed
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

func newBucketStore(t testing.TB) *replicaStore {
	t.Helper()
	s3 := newS3(t)
	s := &replicaStore{}
	s.set(storeIsWell)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*s.fault.Load())(w, r, s3) }))
	t.Cleanup(func() {
		s.set(storeCuts) // a request that waits would hold up Close
		server.CloseClientConnections()
		server.Close()
	})
	s.env = []string{
		"REPLICA_URL=s3://bucket/some/path?region=us-east-1&endpoint=" + server.URL,
		"AWS_ACCESS_KEY_ID=a-key-id", "AWS_SECRET_ACCESS_KEY=a-secret-key", "AWS_CA_BUNDLE=",
	}
	return s
}

// stores are the kinds of store, by name.
var stores = map[string]func(testing.TB) *replicaStore{"folder": newFolderStore, "bucket": newBucketStore}

// newReplicaRun is newFaultRun with a replica.
func newReplicaRun(t testing.TB, base string, seed uint64, store *replicaStore, env ...string) *faultRun {
	t.Helper()
	return newFaultRun(t, base, seed, append(store.env, env...)...)
}

// startShipping starts a server whose replica has these records, and returns a superuser's token too.
func startShipping(t testing.TB, store *replicaStore, titles ...string) (s *server, token string) {
	t.Helper()
	s = startServer(t, newDataDir(t, t.TempDir()), store.env...)
	token = s.Superuser()
	s.sendTitled(titles...)
	s.awaitShipped(token)
	return s, token
}

// loseMachine ends the server as a power failure does, and takes its disk away.
func (s *server) loseMachine() {
	s.t.Helper()
	s.Kill()
	if err := os.RemoveAll(s.Dir); err != nil {
		s.t.Fatal(err)
	}
}

// loseMachine is the server's, and notes it in the ledger.
func (f *faultRun) loseMachine() {
	f.t.Helper()
	f.mu.Lock()
	f.machineLost = true
	f.mu.Unlock()
	f.server.loseMachine()
}

// replicaState is what a server says of its replica.
type replicaState struct {
	Epoch   int
	Shipped time.Time
	Error   string
}

func (s *server) replicaState(token string) replicaState {
	s.t.Helper()
	var stats struct{ Replica *replicaState }
	s.API(token, http.MethodGet, "/api/modelriver/stats", nil, &stats)
	if stats.Replica == nil {
		s.t.Fatal("the server says that it has no replica")
	}
	asked := time.Now()
	_, metrics := s.request(token, http.MethodGet, "/api/modelriver/metrics", "")
	if match := regexp.MustCompile(`(?m)^modelriver_replica_lag_seconds (\S+)$`).FindStringSubmatch(metrics); match != nil {
		lag, err := strconv.ParseFloat(match[1], 64)
		if err != nil {
			s.t.Fatal(err)
		}
		stats.Replica.Shipped = asked.Add(-time.Duration(lag * float64(time.Second)))
	}
	return *stats.Replica
}

// awaitShipped waits until the replica has all that is committed now.
func (s *server) awaitShipped(token string) {
	s.t.Helper()
	now := time.Now()
	await(s.t, "the replica has all", func() bool { return s.replicaState(token).Shipped.After(now) })
}

// serveUnshipped serves without the replica for a while, and takes a webhook for each title.
func (s *server) serveUnshipped(titles ...string) {
	s.t.Helper()
	env := s.env
	s.env = append(slices.Clone(env), "REPLICA_URL=")
	s.Start()
	s.sendTitled(titles...)
	s.Stop()
	s.env = env
}

// beginEmptyEpoch starts the server, which begins an epoch that the store takes nothing of.
func (s *server) beginEmptyEpoch(store *replicaStore) {
	s.t.Helper()
	var begun atomic.Bool
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/0000000002/") {
			begun.Store(true)
			storeCuts(w, r, s3)
			return
		}
		s3.ServeHTTP(w, r)
	})
	s.Start()
	await(s.t, "an epoch is begun", begun.Load)
}

// another returns a server with the same environment on another machine: another directory and
// port. It is not started.
func (s *server) another(dir string) *server {
	other := &server{t: s.t, binary: s.binary, URL: "http://" + freeAddress(s.t), Dir: dir, env: s.env, output: &output{}}
	s.t.Cleanup(other.Kill)
	return other
}

// runToEnd starts the server and returns what it wrote and its exit status, once it has ended.
func (s *server) runToEnd() (text string, code int) {
	s.t.Helper()
	s.launch()
	select {
	case <-s.exited:
		return s.output.String(), s.cmd.ProcessState.ExitCode()
	case <-time.After(2 * patience):
		s.t.Fatalf("the server does not end\n%s", s.output)
		return "", 0
	}
}

// serves reports whether the server answers.
func (s *server) serves() bool {
	response, err := http.Get(s.URL + "/api/health")
	if err == nil {
		response.Body.Close()
	}
	return err == nil
}

// titleSet returns the titles of all records, as a page would list them.
func (s *server) titleSet() map[string]bool {
	s.t.Helper()
	titles := map[string]bool{}
	for page := 1; ; page++ {
		status, answer := s.request("", http.MethodGet, fmt.Sprint("/api/collections/aiContent/records?perPage=1000&sort=id&fields=title&page=", page), "")
		var list struct{ Items []struct{ Title string } }
		if err := json.Unmarshal([]byte(answer), &list); err != nil || status != http.StatusOK {
			s.t.Fatalf("list: %d %s", status, answer)
		}
		if len(list.Items) == 0 {
			return titles
		}
		for _, item := range list.Items {
			titles[item.Title] = true
		}
	}
}

// wantTitles fails the test if a record is missing, or one is there that should not be.
func (s *server) wantTitles(present []string, absent ...string) {
	s.t.Helper()
	titles := s.titleSet()
	for _, title := range present {
		if !titles[title] {
			s.t.Errorf("the record %q is missing among %d", title, len(titles))
		}
	}
	for _, title := range absent {
		if titles[title] {
			s.t.Errorf("the record %q is there", title)
		}
	}
}

// sendTitled sends a webhook for each title, which must be answered 200.
func (s *server) sendTitled(titles ...string) {
	s.t.Helper()
	for _, title := range titles {
		s.mustSend(payload("channel-"+title, title, ""))
	}
}

func numbered(prefix string, n int) (titles []string) {
	for i := range n {
		titles = append(titles, fmt.Sprintf("%s %d", prefix, i))
	}
	return titles
}

// asideDirs returns the directories that databases were put into.
func (s *server) asideDirs() []string {
	s.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(s.Dir, "superseded-*"))
	if err != nil {
		s.t.Fatal(err)
	}
	return dirs
}

func wantText(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}
