package recovery

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

// A bucket holds the replica's objects: a folder, or a bucket of an S3-compatible store.
type bucket interface {
	// Put stores an object, wholly or not at all, and returns when it is durable. With
	// onlyNew it fails with errExists if there is one with that key. The size may be -1,
	// unknown, but not with onlyNew.
	Put(ctx context.Context, key string, content io.Reader, size int64, onlyNew bool) error

	// Get returns the object from an offset on, and no more than size bytes of it if that
	// is not 0. It fails with errMissing if there is none.
	Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error)

	// List returns the objects whose keys begin with the prefix, which ends with a slash,
	// and come after a key, in the order of their keys.
	List(ctx context.Context, prefix, after string) ([]object, error)

	// Delete deletes objects. Those that are not there are no error.
	Delete(ctx context.Context, keys []string) error

	// Clock returns the store's time, which need not be this machine's.
	Clock(ctx context.Context) (time.Time, error)

	// Place names where it is, however its URL is spelled.
	Place() string
}

type object struct {
	key     string
	size    int64
	written time.Time
}

var (
	errExists  = errors.New("there is an object with that key already")
	errMissing = errors.New("there is no such object")
)

// openBucket returns the bucket of a replica's URL.
func openBucket(rawURL string) (bucket, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("it is no URL: use file:///path/of/a/folder, or s3://bucket/path?endpoint=…&region=…")
	}
	if u.User != nil {
		return nil, errors.New("it has credentials in it: take them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") || u.RawQuery != "" || strings.Trim(u.Path, "/") == "" {
			return nil, errors.New("use the absolute path of a folder, as in file:///mnt/replica")
		}
		return folder(u.Path), nil
	case "s3":
		return newS3(u)
	}
	return nil, fmt.Errorf("its scheme is %q: use file:///path/of/a/folder, or s3://bucket/path?endpoint=…&region=…", u.Scheme)
}

// placeOf returns the place of a replica's URL, or "" if it is none.
func placeOf(rawURL string) string {
	b, err := openBucket(rawURL)
	if err != nil {
		return ""
	}
	return b.Place()
}

// readAll returns a small object.
func readAll(ctx context.Context, b bucket, key string) ([]byte, error) {
	answer, err := b.Get(ctx, key, 0, 0)
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	return io.ReadAll(io.LimitReader(answer, 1<<20))
}

// newId returns a name that no other run, directory or replica has.
func newId() string { return strings.ToLower(rand.Text()) }
