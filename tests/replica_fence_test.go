package tests

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// A server that cannot see whether another one has taken the replica over acknowledges nothing, also
// what an earlier try has stored.
func TestReplicaUnseenTakeover(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s := startServer(t, newDataDir(t, t.TempDir()), append(store.env, "REPLICA_ACK=wait")...)
	s.sendTitled("Before")
	next := s.another(newDataDir(t, t.TempDir()))
	next.args = []string{"--takeover"}
	var looks atomic.Int32
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/epochs/0000000002.json") && r.Header.Get("Range") != "" { // the look for a later epoch
			looks.Add(1)
			storeFails(w, r, s3)
			return
		}
		s3.ServeHTTP(w, r)
	})
	next.Start()
	for looks.Load() < 30 {
		if status := s.Send(payload("channel-late", "Late", "")); status == http.StatusOK {
			t.Fatal("a server that was taken over acknowledges")
		}
	}
}

// Servers on equal copies of a data directory, where none saw the other's sign of life, never both
// acknowledge: neither after a failure of the store, nor when the transactions of the one that the other
// would write are put together already.
func TestReplicaOfTwins(t *testing.T) {
	t.Parallel()
	for name, happens := range map[string]func(t *testing.T, store *replicaStore, twin *server){
		"after a failure": func(t *testing.T, store *replicaStore, twin *server) {
			store.set(storeCuts)
			if status := twin.Send(payload("channel-twin", "Of the twin", "")); status != http.StatusServiceUnavailable {
				t.Errorf("while the store is away: got %d", status)
			}
			store.set(storeIsWell)
		},
		"after five minutes": func(t *testing.T, store *replicaStore, _ *server) {
			_, address, _ := strings.Cut(store.env[0], "endpoint=http://")
			client, err := minio.New(address, &minio.Options{Creds: credentials.NewStaticV4("a-key-id", "a-secret-key", ""), Region: "us-east-1"})
			if err != nil {
				t.Fatal(err)
			}
			var keys []string
			for object := range client.ListObjects(t.Context(), "bucket", minio.ListObjectsOptions{Prefix: "some/path/0000000001/0/", Recursive: true}) {
				keys = append(keys, object.Key)
			}
			for _, key := range keys[:len(keys)-1] { // as keeper.forgetSeconds does
				if err := client.RemoveObject(t.Context(), "bucket", key, minio.RemoveObjectOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newBucketStore(t)
			s := startServer(t, newDataDir(t, t.TempDir()), append(store.env, "REPLICA_ACK=wait")...)
			s.sendTitled("First")
			s.Stop()
			twin := s.another(copyDir(t, s.Dir))
			store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
				if strings.HasSuffix(r.URL.Path, "/alive.json") {
					http.Error(w, "<Error><Code>NoSuchKey</Code></Error>", http.StatusNotFound)
					return
				}
				s3.ServeHTTP(w, r)
			})
			s.Start()
			twin.Start()
			store.set(storeIsWell)
			s.sendTitled(numbered("Acknowledged", 5)...)
			happens(t, store, twin)
			await(t, "the twin ends", func() bool {
				if status := twin.Send(payload("channel-twin", "Of the twin", "")); status == http.StatusOK {
					t.Fatal("the twin acknowledges too")
				}
				return !twin.serves()
			})
			wantText(t, twin.output.String(), "another server has taken the replica over: this server ends")
		})
	}
}
