package recovery

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

func TestMain(m *testing.M) {
	os.Setenv("AWS_ACCESS_KEY_ID", "a-key-id")
	os.Setenv("AWS_SECRET_ACCESS_KEY", "a-secret-key")
	os.Exit(m.Run())
}

// buckets returns one of each kind, by name.
func buckets(t *testing.T) map[string]bucket {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	t.Cleanup(server.Close)
	return map[string]bucket{
		"folder": mustOpen(t, "file://"+filepath.Join(t.TempDir(), "some", "folder")),
		"s3":     mustOpen(t, "s3://bucket/some/path?region=us-east-1&endpoint="+server.URL),
	}
}

func mustOpen(t *testing.T, url string) bucket {
	t.Helper()
	b, err := openBucket(url)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// each runs a test on a bucket of each kind.
func each(t *testing.T, run func(t *testing.T, ctx context.Context, b bucket)) {
	t.Helper()
	for name, b := range buckets(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, t.Context(), b)
		})
	}
}
