package recovery

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"
)

// Bounds of one request to the store: what a small object may take, and what a large one gets
// for each byte beside.
const (
	callTimeout  = 20 * time.Second
	slowestPace  = 256 << 10 // bytes a second
	partSize     = 16 << 20  // of an object whose size is not known, held in memory
	maxSinglePut = 5 << 30   // which S3 takes in one request
)

// An s3Bucket is a path within a bucket of an S3-compatible store.
type s3Bucket struct {
	client *minio.Client
	name   string
	prefix string // empty, or ends with a slash
	http   *http.Client
	probe  string
}

// newS3 reads s3://bucket/path?endpoint=https://…&region=…. Credentials come from where the
// tools of S3 look for them: the environment, ~/.aws/credentials, the machine's role.
func newS3(u *url.URL) (*s3Bucket, error) {
	query := u.Query()
	for name := range query {
		if name != "endpoint" && name != "region" {
			return nil, fmt.Errorf("it has a parameter %q: there are endpoint and region", name)
		}
	}
	if u.Host == "" {
		return nil, errors.New("it names no bucket, as in s3://bucket/path?endpoint=https://…&region=…")
	}
	endpoint := query.Get("endpoint")
	if endpoint == "" {
		endpoint = "https://s3.amazonaws.com"
	}
	store, err := url.Parse(endpoint)
	if err != nil || store.Host == "" || store.Scheme != "https" && store.Scheme != "http" || strings.Trim(store.Path, "/") != "" {
		return nil, errors.New("its endpoint is not an address with https:// or http://, as in https://s3.eu-central-1.amazonaws.com")
	}
	if store.User != nil {
		return nil, errors.New("its endpoint has credentials in it: take them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	transport, err := minio.DefaultTransport(store.Scheme == "https")
	if err != nil {
		return nil, fmt.Errorf("%w (AWS_CA_BUNDLE, SSL_CERT_FILE and SSL_CERT_DIR name certificates that must be readable)", err)
	}
	client, err := minio.New(store.Host, &minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
		}),
		Secure: store.Scheme == "https", Region: query.Get("region"), Transport: transport, MaxRetries: 2,
	})
	if err != nil {
		return nil, err
	}
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" {
		prefix += "/"
	}
	return &s3Bucket{
		client: client, name: u.Host, prefix: prefix,
		http: &http.Client{Transport: transport, Timeout: callTimeout}, probe: endpoint,
	}, nil
}

func (b *s3Bucket) Place() string {
	return "s3://" + b.name + "/" + b.prefix + "?endpoint=" + strings.ToLower(b.client.EndpointURL().Host)
}

func (b *s3Bucket) Put(ctx context.Context, key string, content io.Reader, size int64, onlyNew bool) error {
	if size < 0 {
		var err error
		if content, size, err = measure(content); err != nil {
			return err
		}
	}
	timeout := callTimeout + time.Duration(max(size, 0)/slowestPace)*time.Second
	if size < 0 {
		timeout = 6 * time.Hour // what is read decides
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	options := minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: partSize,
		SendContentMd5: true, DisableContentSha256: true, // one sum is enough
	}
	if onlyNew {
		options.SetMatchETagExcept("*")
		options.DisableMultipart = size <= maxSinglePut // the condition is for one request
	}
	info, err := b.client.PutObject(ctx, b.name, b.prefix+key, content, size, options)
	if err != nil {
		return b.fail(err)
	}
	if size >= 0 && info.Size != size {
		return fmt.Errorf("%d of %d bytes were stored", info.Size, size)
	}
	return nil
}

// measure returns content whose size is known, unless it is larger than a part.
func measure(content io.Reader) (io.Reader, int64, error) {
	var begin bytes.Buffer
	n, err := io.Copy(&begin, io.LimitReader(content, partSize))
	if err != nil {
		return nil, 0, err
	}
	if n < partSize {
		return bytes.NewReader(begin.Bytes()), n, nil
	}
	return io.MultiReader(&begin, content), -1, nil
}

func (b *s3Bucket) Get(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	a := &answer{bucket: b, ctx: ctx, key: key, offset: offset, size: size}
	if err := a.open(); err != nil {
		return nil, err
	}
	return a, nil
}

// An answer breaks off when nothing of it comes for long, and goes on from there when it was cut off: the restore of a large
// database would begin anew.
type answer struct {
	bucket       *s3Bucket
	ctx          context.Context
	key          string
	offset, size int64
	got          int64
	etag         string
	cuts         int // since something came

	content io.ReadCloser
	stalled *time.Timer
	cancel  context.CancelFunc
}

// maxCuts is how often an answer is asked for of which nothing comes.
const maxCuts = 3

// open asks for what hasn't come yet.
func (a *answer) open() (err error) {
	var options minio.GetObjectOptions
	from := a.offset + a.got
	switch {
	case a.size > 0:
		err = options.SetRange(from, a.offset+a.size-1)
	case from > 0:
		err = options.SetRange(from, 0)
	}
	if err != nil {
		return err
	}
	// Core asks at once, where GetObject would ask at the first Read.
	ctx, cancel := context.WithCancel(a.ctx)
	stalled := time.AfterFunc(callTimeout, cancel)
	content, info, header, err := (&minio.Core{Client: a.bucket.client}).GetObject(ctx, a.bucket.name, a.bucket.prefix+a.key, options)
	if err != nil {
		stalled.Stop()
		cancel()
		return a.bucket.fail(err)
	}
	switch {
	case from > 0 && header.Get("Content-Range") == "":
		err = errors.New("the store answered with a whole object where a part was asked for")
	case a.got > 0 && info.ETag != a.etag:
		err = errors.New("another object has been stored meanwhile")
	}
	if err != nil {
		stalled.Stop()
		cancel()
		return errors.Join(err, content.Close())
	}
	a.content, a.stalled, a.cancel, a.etag = content, stalled, cancel, info.ETag
	return nil
}

func (a *answer) Read(p []byte) (int, error) {
	for {
		a.stalled.Reset(callTimeout)
		n, err := a.content.Read(p)
		if a.got += int64(n); n > 0 {
			a.cuts = 0
		}
		switch {
		case err == nil, err == io.EOF: //nolint:errorlint // which readers return as it is
			return n, err
		case n > 0:
			return n, nil // the next Read fails again
		}
		if a.cuts++; a.cuts == maxCuts || a.ctx.Err() != nil {
			return 0, err
		}
		a.Close()
		if again := a.open(); again != nil {
			return 0, errors.Join(err, again)
		}
	}
}

func (a *answer) Close() error {
	a.stalled.Stop()
	a.cancel()
	return a.content.Close()
}

func (b *s3Bucket) List(ctx context.Context, prefix, after string) ([]object, error) {
	ctx, cancel := context.WithCancel(ctx) // which ends the listing's goroutine too
	defer cancel()
	stalled := time.AfterFunc(callTimeout, cancel)
	defer stalled.Stop()
	var objects []object
	options := minio.ListObjectsOptions{Prefix: b.prefix + prefix, Recursive: true}
	if after != "" {
		options.StartAfter = b.prefix + after
	}
	for info := range b.client.ListObjects(ctx, b.name, options) {
		if info.Err != nil {
			return nil, b.fail(info.Err)
		}
		stalled.Reset(callTimeout)
		objects = append(objects, object{key: strings.TrimPrefix(info.Key, b.prefix), size: info.Size, written: info.LastModified})
	}
	if err := ctx.Err(); err != nil { // minio ends the listing without an error
		return nil, fmt.Errorf("the listing did not come to its end: %w", err)
	}
	slices.SortFunc(objects, func(a, b object) int { return strings.Compare(a.key, b.key) })
	return objects, nil
}

func (b *s3Bucket) Delete(ctx context.Context, keys []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, key := range keys {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			err := b.fail(b.client.RemoveObject(ctx, b.name, b.prefix+key, minio.RemoveObjectOptions{}))
			if errors.Is(err, errMissing) {
				return nil
			}
			return err
		})
	}
	return group.Wait()
}

// Clock returns what the store's answers are dated with, which it gives without a signature
// too.
func (b *s3Bucket) Clock(ctx context.Context) (time.Time, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, b.probe, nil)
	if err != nil {
		return time.Time{}, err
	}
	response, err := b.http.Do(request)
	if err != nil {
		return time.Time{}, err
	}
	response.Body.Close()
	return http.ParseTime(response.Header.Get("Date"))
}

// fail turns the store's error into one that says what to do.
func (b *s3Bucket) fail(err error) error {
	if err == nil {
		return nil
	}
	switch response := minio.ToErrorResponse(err); {
	case response.StatusCode == http.StatusPreconditionFailed, response.StatusCode == http.StatusConflict:
		return errExists
	case response.Code == minio.NoSuchKey:
		return errMissing
	case response.Code == minio.NoSuchBucket:
		return fmt.Errorf("there is no bucket %q (%s): create it, or mend its name or the endpoint in REPLICA_URL", b.name, response.Code)
	case response.Code == "RequestTimeTooSkewed":
		return fmt.Errorf("this machine's clock differs too much from the store's: %w", err)
	case response.StatusCode == http.StatusMovedPermanently, response.Code == minio.AuthorizationHeaderMalformed, response.Code == minio.InvalidRegion:
		return fmt.Errorf("the bucket %q is in another region (%s): set region=%s in REPLICA_URL", b.name, response.Code, cmp.Or(response.Region, "…"))
	case response.Code == minio.InvalidAccessKeyID:
		return fmt.Errorf("the store does not know this key (%s): set AWS_ACCESS_KEY_ID to one of this store", response.Code)
	case response.Code == minio.SignatureDoesNotMatch:
		return fmt.Errorf("the secret is not the one of this key (%s): set AWS_SECRET_ACCESS_KEY to that of AWS_ACCESS_KEY_ID", response.Code)
	case response.StatusCode == http.StatusForbidden:
		return fmt.Errorf("the store refuses these credentials (%s): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to ones that may list, read, write and delete in %q", response.Code, b.name)
	}
	return err
}
