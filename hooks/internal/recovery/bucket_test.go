package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

func put(ctx context.Context, b bucket, key, content string, onlyNew bool) error {
	return b.Put(ctx, key, strings.NewReader(content), int64(len(content)), onlyNew)
}

func TestObjects(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, ctx context.Context, b bucket) {
		for _, step := range []struct {
			key, content string
			onlyNew      bool
			err          error
			want         string // of the object afterwards
		}{
			{"a/1", "one", false, nil, "one"},
			{"a/1", "two", false, nil, "two"},
			{"a/1", "three", true, errExists, "two"},
			{"a/2", "e", true, nil, "e"},
			{"a/2", "x", true, errExists, "e"},
			{"b/deep/down", "three", true, nil, "three"},
		} {
			if err := put(ctx, b, step.key, step.content, step.onlyNew); !errors.Is(err, step.err) {
				t.Errorf("put %s: got %v, want %v", step.key, err, step.err)
			}
			if got, err := readAll(ctx, b, step.key); string(got) != step.want || err != nil {
				t.Errorf("%s: got %q, %v, want %q", step.key, got, err, step.want)
			}
		}
		if _, err := readAll(ctx, b, "a/3"); !errors.Is(err, errMissing) {
			t.Errorf("a missing object: got %v", err)
		}
		part, err := b.Get(ctx, "b/deep/down", 1, 3)
		if err != nil {
			t.Fatal(err)
		}
		defer part.Close()
		if got, err := io.ReadAll(part); string(got) != "hre" || err != nil {
			t.Errorf("a part: got %q, %v", got, err)
		}
		end, err := b.Get(ctx, "b/deep/down", 3, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer end.Close()
		if got, err := io.ReadAll(end); string(got) != "ee" || err != nil {
			t.Errorf("the end: got %q, %v", got, err)
		}
		if err := b.Delete(ctx, []string{"a/1", "never there"}); err != nil {
			t.Error(err)
		}
		if got := keys(ctx, t, b, "a/", ""); got != "a/2" {
			t.Errorf("after a deletion: got %s", got)
		}
	})
}

// A start reads all epochs of a replica, and then maybe much of a database, so that what happens to few of its requests must
// not end it. It goes on where it was cut off, but not with another object.
func TestAnswersThatAreCutOff(t *testing.T) {
	t.Parallel()
	backend := s3mem.New()
	if err := backend.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	store := gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server()
	var cut, through atomic.Int64 // how many answers are cut off, after how many bytes
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || cut.Add(-1) < 0 {
			store.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		store.ServeHTTP(answer, r)
		maps.Copy(w.Header(), answer.Header())
		w.Write(answer.Body.Bytes()[:min(int(through.Load()), answer.Body.Len())])
		w.(http.Flusher).Flush() // else the transport asks again by itself
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	b := mustOpen(t, "s3://bucket/some/path?region=us-east-1&endpoint="+server.URL)
	if err := put(t.Context(), b, "a", "one", false); err != nil {
		t.Fatal(err)
	}
	for _, times := range []int64{1, 2} {
		cut.Store(times)
		if got, err := readAll(t.Context(), b, "a"); string(got) != "one" || err != nil {
			t.Errorf("cut off %d times: got %q, %v", times, got, err)
		}
	}
	cut.Store(3)
	if got, err := readAll(t.Context(), b, "a"); err == nil {
		t.Errorf("cut off always: got %q", got)
	}

	var long []byte
	for i := range 1000 {
		long = fmt.Appendf(long, "%d ", i)
	}
	if err := put(t.Context(), b, "long", string(long), false); err != nil {
		t.Fatal(err)
	}
	through.Store(100)
	cut.Store(20)
	if got, err := readAll(t.Context(), b, "long"); !bytes.Equal(got, long) || err != nil {
		t.Errorf("cut off every 100 bytes: got %d bytes, %v", len(got), err)
	}
	cut.Store(20)
	part, err := b.Get(t.Context(), "long", 10, 500)
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close()
	if got, err := io.ReadAll(part); !bytes.Equal(got, long[10:510]) || err != nil {
		t.Errorf("a part: got %q, %v", got, err)
	}
	cut.Store(1)
	changes, err := b.Get(t.Context(), "long", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer changes.Close()
	if err := put(t.Context(), b, "long", strings.ToUpper(string(long))+"x", false); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(changes); err == nil {
		t.Errorf("the end of another object: got %q", got)
	}
}

// A store, or a proxy before it, that answers with the whole object where a part is asked for has not given that part.
func TestPartsThatAreWhole(t *testing.T) {
	t.Parallel()
	backend := s3mem.New()
	if err := backend.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	store := gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		store.ServeHTTP(w, r)
	}))
	defer server.Close()
	b := mustOpen(t, "s3://bucket/some/path?region=us-east-1&endpoint="+server.URL)
	if err := put(t.Context(), b, "a", "one", false); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(t.Context(), b, "a"); string(got) != "one" || err != nil {
		t.Errorf("the whole: got %q, %v", got, err)
	}
	end, err := b.Get(t.Context(), "a", 1, 0)
	if err == nil {
		defer end.Close()
		got, err := io.ReadAll(end)
		t.Errorf("the end: got %q, %v", got, err)
	}
}

func keys(ctx context.Context, t *testing.T, b bucket, prefix, after string) string {
	t.Helper()
	objects, err := b.List(ctx, prefix, after)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, object := range objects {
		keys = append(keys, object.key)
	}
	return strings.Join(keys, " ")
}

func TestListings(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, ctx context.Context, b bucket) {
		const n = 1100 // more than a store lists at once
		for i := range n {
			if err := put(ctx, b, fmt.Sprintf("many/%04d", i), "x", false); err != nil {
				t.Fatal(err)
			}
		}
		if err := put(ctx, b, "other/0", "abc", false); err != nil {
			t.Fatal(err)
		}
		objects, err := b.List(ctx, "many/", "")
		if err != nil || len(objects) != n || objects[n-1].key != "many/1099" {
			t.Fatalf("got %d objects, %v", len(objects), err)
		}
		if got := keys(ctx, t, b, "many/", "many/1097"); got != "many/1098 many/1099" {
			t.Errorf("after a key: got %s", got)
		}
		objects, err = b.List(ctx, "other/", "")
		if err != nil || len(objects) != 1 || objects[0].size != 3 || time.Since(objects[0].written).Abs() > time.Minute {
			t.Errorf("got %+v, %v", objects, err)
		}
		if objects, err := b.List(ctx, "none/", ""); len(objects) > 0 || err != nil {
			t.Errorf("of nothing: got %v, %v", objects, err)
		}
	})
}

// Of those who store an object that must be new, one succeeds.
func TestOneIsFirst(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, ctx context.Context, b bucket) {
		for round := range 10 {
			var first atomic.Int32
			var group sync.WaitGroup
			for i := range 8 {
				group.Go(func() {
					err := put(ctx, b, fmt.Sprint("one/", round), fmt.Sprint(i), true)
					if err == nil {
						first.Add(1)
					} else if !errors.Is(err, errExists) {
						t.Error(err)
					}
				})
			}
			group.Wait()
			if got := first.Load(); got != 1 {
				t.Errorf("%d were first", got)
			}
		}
	})
}

// An object of unknown size is stored whole, if it is larger than what is held in memory too.
func TestLargeObjects(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, ctx context.Context, b bucket) {
		content := bytes.Repeat([]byte("0123456789abcdef"), (partSize+partSize/2)/16)
		if err := b.Put(ctx, "large", io.MultiReader(bytes.NewReader(content)), -1, false); err != nil {
			t.Fatal(err)
		}
		stored, err := b.Get(ctx, "large", 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer stored.Close()
		if same, err := equalContent(stored, bytes.NewReader(content)); !same || err != nil {
			t.Errorf("what is stored differs: %v", err)
		}
	})
}

// What could not be stored whole is not there, and leaves nothing behind.
func TestBrokenContent(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, ctx context.Context, b bucket) {
		broken := io.MultiReader(strings.NewReader("begins"), iotestError{})
		if err := b.Put(ctx, "dir/broken", broken, -1, false); err == nil {
			t.Error("stored")
		}
		if got := keys(ctx, t, b, "dir/", ""); got != "" {
			t.Errorf("got %s", got)
		}
		if f, ok := b.(folder); ok {
			entries, err := os.ReadDir(filepath.Join(string(f), "dir"))
			if err != nil || len(entries) > 0 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		}
	})
}

type iotestError struct{}

func (iotestError) Read([]byte) (int, error) { return 0, errors.New("it breaks off") }

func TestClocks(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, ctx context.Context, b bucket) {
		clock, err := b.Clock(ctx)
		if err != nil || time.Since(clock).Abs() > 10*time.Second {
			t.Errorf("got %s, %v", clock, err)
		}
	})
}

// What a store refuses is said with what to do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		status int
		code   string
		want   string
	}{
		{404, "NoSuchBucket", `there is no bucket "bucket" (NoSuchBucket): create it`},
		{403, "AccessDenied", "(AccessDenied): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to ones that may list"},
		{403, "InvalidAccessKeyId", "does not know this key (InvalidAccessKeyId): set AWS_ACCESS_KEY_ID"},
		{403, "SignatureDoesNotMatch", "(SignatureDoesNotMatch): set AWS_SECRET_ACCESS_KEY"},
		{301, "PermanentRedirect", "(PermanentRedirect): set region=eu-central-1"},
		{400, "AuthorizationHeaderMalformed", "(AuthorizationHeaderMalformed): set region=eu-central-1"},
		{400, "InvalidRegion", "(InvalidRegion): set region=eu-central-1"},
	} {
		t.Run(row.code, func(t *testing.T) {
			t.Parallel()
			store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("x-amz-bucket-region", "eu-central-1")
				w.WriteHeader(row.status)
				fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", row.code)
			}))
			defer store.Close()
			b := mustOpen(t, "s3://bucket?region=us-east-1&endpoint="+store.URL)
			_, listErr := b.List(t.Context(), epochsDir, "")
			_, readErr := readAll(t.Context(), b, replicaKey)
			for _, err := range []error{listErr, readErr} {
				if err == nil || !strings.Contains(err.Error(), row.want) {
					t.Errorf("got %v, want %q", err, row.want)
				}
			}
		})
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"file:///a/folder": "",
		"s3://bucket":      "",
		"s3://bucket/path?endpoint=http://127.0.0.1:9000": "",
		"s3://bucket/path?endpoint=https://host&region=r": "",
		"file://a/folder":                       "absolute path",
		"file:///":                              "absolute path",
		"s3://":                                 "names no bucket",
		"s3://bucket?endpoint=https://k:s@host": "credentials",
		"s3://k:s@bucket":                       "credentials",
		"s3://bucket?endpoint=ftp://host":       "not an address",
		"s3://bucket?endpoint=127.0.0.1:9000":   "not an address",
		"s3://bucket?endpoint=s3.example.com":   "not an address",
		"s3://bucket?acl=x":                     `parameter "acl"`,
		"/a/folder":                             "scheme",
		"://":                                   "no URL",
	} {
		_, err := openBucket(url)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "k:s") {
			t.Errorf("%s: the secret is told: %v", url, err)
		}
	}
}

// One place may be spelled in several ways, and is another one nearby.
func TestPlaces(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		a, b string
		same bool
	}{
		{"file:///some/folder", "file:///some/folder/", true},
		{"file:///some/folder", "file:///some/./other/../fol%64er", true},
		{"file:///some/folder", "file:///some", false},
		{"s3://bucket/path?region=us-east-1&endpoint=https://example.com", "s3://bucket/path/?endpoint=https://EXAMPLE.com/&region=", true},
		{"s3://bucket/path?endpoint=https://example.com", "s3://bucket/path", false},
		{"s3://bucket/path", "s3://bucket/", false},
		{"s3://bucket", "s3://bucket2", false},
		{"file:///some/folder", "", false},
	} {
		if same := placeOf(row.a) == placeOf(row.b); same != row.same {
			t.Errorf("%s, %s: got %t", row.a, row.b, same)
		}
	}
}
