package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
	"golang.org/x/sync/errgroup"
)

// errOver is returned once another server writes to the replica.
var errOver = errors.New("another server has taken the replica over")

// An epochClient is what Litestream reads and writes one epoch with.
type epochClient struct {
	bucket bucket
	epoch  atomic.Pointer[epoch]

	// known is the newest transaction that the epoch is known to have when Litestream opens
	// the database. It asks for that then, and would, if the store did not answer, close a
	// file in a way that gives up every lock of this process on the database.
	known atomic.Pointer[ltx.FileInfo]

	over    atomic.Bool   // errOver was returned
	changed chan struct{} // holds one after an epoch was begun

	// read counts the bytes that are read, for a progress bar. It may be nil.
	read io.Writer
}

var _ litestream.ReplicaClient = (*epochClient)(nil)

func newEpochClient(b bucket, e epoch) *epochClient {
	c := &epochClient{bucket: b, changed: make(chan struct{}, 1)}
	c.epoch.Store(&e)
	return c
}

// begin has the client read and write an epoch.
func (c *epochClient) begin(e epoch) {
	c.epoch.Store(&e)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// begun reports whether it has one: the store was reached, and this server may write.
func (c *epochClient) begun() bool { return c.epoch.Load().Number > 0 }

func (c *epochClient) Type() string { return "pocketriver" }

func (c *epochClient) Init(context.Context) error { return nil }

func (c *epochClient) SetLogger(*slog.Logger) {}

func (c *epochClient) levelDir(level int) string {
	return epochDir(c.epoch.Load().Number) + strconv.Itoa(level) + "/"
}

func (c *epochClient) key(level int, minTXID, maxTXID ltx.TXID) string {
	return c.levelDir(level) + ltx.FormatFilename(minTXID, maxTXID)
}

// LTXFiles returns the files of a level. Exact times are read from the files themselves, since a
// file that waited for the store is older than its object.
func (c *epochClient) LTXFiles(ctx context.Context, level int, seek ltx.TXID, exactTimes bool) (ltx.FileIterator, error) {
	if known := c.known.Load(); known != nil && level == 0 {
		if known.MaxTXID == 0 {
			return ltx.NewFileInfoSliceIterator(nil), nil
		}
		return ltx.NewFileInfoSliceIterator([]*ltx.FileInfo{known}), nil
	}
	objects, err := c.bucket.List(ctx, c.levelDir(level), c.levelDir(level)+seek.String()) // which begins the names of its files
	if err != nil {
		return nil, err
	}
	var infos []*ltx.FileInfo
	for _, object := range objects {
		minTXID, maxTXID, err := ltx.ParseFilename(path.Base(object.key))
		if err != nil {
			continue
		}
		infos = append(infos, &ltx.FileInfo{Level: level, MinTXID: minTXID, MaxTXID: maxTXID, Size: object.size, CreatedAt: object.written.UTC()})
	}
	if exactTimes {
		if err := c.readTimes(ctx, infos); err != nil {
			return nil, err
		}
	}
	return ltx.NewFileInfoSliceIterator(infos), nil
}

func (c *epochClient) readTimes(ctx context.Context, infos []*ltx.FileInfo) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for _, info := range infos {
		group.Go(func() error {
			header, err := c.header(ctx, info)
			if errors.Is(err, os.ErrNotExist) {
				return nil // deleted meanwhile
			}
			if errors.Is(err, ltx.ErrInvalidFile) || info.Size < ltx.HeaderSize {
				return nil // damaged: what was before it can be restored
			}
			if err == nil {
				info.CreatedAt = time.UnixMilli(header.Timestamp).UTC()
			}
			return err
		})
	}
	return group.Wait()
}

// header returns what a file of the epoch begins with.
func (c *epochClient) header(ctx context.Context, info *ltx.FileInfo) (ltx.Header, error) {
	content, err := c.open(ctx, info.Level, info.MinTXID, info.MaxTXID, 0, ltx.HeaderSize)
	if err != nil {
		return ltx.Header{}, err
	}
	defer content.Close()
	header, _, err := ltx.PeekHeader(content)
	return header, err
}

func (c *epochClient) open(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	content, err := c.bucket.Get(ctx, c.key(level, minTXID, maxTXID), offset, size)
	if errors.Is(err, errMissing) {
		return nil, fmt.Errorf("%s: %w", c.key(level, minTXID, maxTXID), os.ErrNotExist)
	}
	return content, err
}

func (c *epochClient) OpenLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	content, err := c.open(ctx, level, minTXID, maxTXID, offset, size)
	if err != nil || c.read == nil {
		return content, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.TeeReader(content, c.read), content}, nil
}

// WriteLTXFile stores a file. What it returns nil for is what the epoch's owner has in the replica:
// each transaction is stored only where nobody else has stored one, as the owner of a copy of the data
// directory would, and a later epoch's owner sees it if it had not begun when this returns.
func (c *epochClient) WriteLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, content io.Reader) (*ltx.FileInfo, error) {
	header, content, err := peekHeader(content)
	if err != nil {
		return nil, err
	}
	e, key, size := *c.epoch.Load(), c.key(level, minTXID, maxTXID), int64(-1)
	if local, ok := content.(*os.File); ok && minTXID > 1 {
		err = c.follows(ctx, local.Name(), level, minTXID-1)
	} else {
		err = e.isThere(ctx, c.bucket)
	}
	if err != nil {
		return nil, err
	}
	if local, ok := content.(*os.File); ok {
		info, err := local.Stat()
		if err != nil {
			return nil, err
		}
		size = info.Size()
		err = c.bucket.Put(ctx, key, local, size, level == 0)
		if errors.Is(err, errExists) {
			err = c.isOurs(ctx, key, local)
		}
		if err != nil {
			return nil, err
		}
	} else {
		counted := &countingReader{Reader: content}
		if err := c.bucket.Put(ctx, key, counted, size, false); err != nil {
			return nil, err
		}
		size = counted.n
	}
	over, err := e.isOver(ctx, c.bucket)
	if err != nil {
		return nil, err
	}
	if over {
		c.over.Store(true)
		return nil, errOver
	}
	return &ltx.FileInfo{
		Level: level, MinTXID: minTXID, MaxTXID: maxTXID, Size: size, CreatedAt: time.UnixMilli(header.Timestamp).UTC(),
	}, nil
}

// follows returns an error unless the replica has what a local file follows on: another server, on a
// copy of the data directory, may have stored other files and deleted them again.
func (c *epochClient) follows(ctx context.Context, name string, level int, before ltx.TXID) error {
	local, err := os.Open(filepath.Join(filepath.Dir(name), ltx.FormatFilename(before, before)))
	if err != nil {
		return err
	}
	defer local.Close()
	ours, _, err := ltx.PeekHeader(local)
	if err != nil {
		return err
	}
	stored, err := c.header(ctx, &ltx.FileInfo{Level: level, MinTXID: before, MaxTXID: before})
	if errors.Is(err, os.ErrNotExist) {
		err = c.epoch.Load().isThere(ctx, c.bucket)
	}
	if err == nil && stored != ours {
		c.over.Store(true)
		return errOver
	}
	return err
}

// peekHeader returns a file's header, and the whole file to be read.
func peekHeader(content io.Reader) (ltx.Header, io.Reader, error) {
	header, whole, err := ltx.PeekHeader(content)
	if err != nil {
		return header, nil, fmt.Errorf("the file's header: %w", err)
	}
	if local, ok := content.(*os.File); ok {
		_, err := local.Seek(0, io.SeekStart)
		return header, local, err
	}
	return header, whole, nil
}

// isOurs returns nil if the object is the local file: its answer was lost, and it was sent again.
func (c *epochClient) isOurs(ctx context.Context, key string, local *os.File) error {
	stored, err := c.bucket.Get(ctx, key, 0, 0)
	if err != nil {
		return err
	}
	defer stored.Close()
	if _, err := local.Seek(0, io.SeekStart); err != nil {
		return err
	}
	same, err := equalContent(stored, local)
	if err != nil {
		return err
	}
	if !same {
		c.over.Store(true)
		return errOver // two servers run on copies of one data directory
	}
	return nil
}

func equalContent(a, b io.Reader) (bool, error) {
	const size = 64 << 10
	bufferA, bufferB := make([]byte, size), make([]byte, size)
	for {
		nA, endA, errA := fill(a, bufferA)
		nB, endB, errB := fill(b, bufferB)
		if err := errors.Join(errA, errB); err != nil {
			return false, err
		}
		if string(bufferA[:nA]) != string(bufferB[:nB]) || endA != endB {
			return false, nil
		}
		if endA {
			return true, nil
		}
	}
}

// fill reads until the buffer is full, or the content has ended.
func fill(content io.Reader, buffer []byte) (n int, ended bool, err error) {
	n, err = io.ReadFull(content, buffer)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return n, true, nil
	}
	return n, false, err
}

func (c *epochClient) DeleteLTXFiles(ctx context.Context, infos []*ltx.FileInfo) error {
	var keys []string
	for _, info := range infos {
		keys = append(keys, c.key(info.Level, info.MinTXID, info.MaxTXID))
	}
	return c.bucket.Delete(ctx, keys)
}

// DeleteAll is not asked for by what is used of Litestream.
func (c *epochClient) DeleteAll(context.Context) error {
	return errors.New("an epoch is not deleted by its owner")
}

type countingReader struct {
	io.Reader
	n int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n += int64(n)
	return n, err
}

// files returns the files of a level, the newest last.
func (c *epochClient) files(ctx context.Context, level int) ([]*ltx.FileInfo, error) {
	files, err := c.LTXFiles(ctx, level, 0, false)
	if err != nil {
		return nil, err
	}
	return ltx.SliceFileIterator(files)
}

// lastOf returns the newest transaction that the epoch has, or an empty one: of two levels, in the
// lower, which is what Litestream goes on from.
func (c *epochClient) lastOf(ctx context.Context) (*ltx.FileInfo, error) {
	newest := make([]*ltx.FileInfo, litestream.SnapshotLevel+1)
	group, ctx := errgroup.WithContext(ctx)
	for level := range newest {
		group.Go(func() error {
			infos, err := c.files(ctx, level)
			if len(infos) > 0 {
				newest[level] = infos[len(infos)-1]
			}
			return err
		})
	}
	err := group.Wait()
	last := &ltx.FileInfo{}
	for _, info := range newest {
		if info != nil && info.MaxTXID > last.MaxTXID {
			last = info
		}
	}
	return last, err
}

// isOf reports whether the epoch has nothing but what was read of the database that is here, or was. header
// returns what the local file of a transaction begins with.
func (c *epochClient) isOf(ctx context.Context, header func(ltx.TXID) (ltx.Header, error)) (bool, error) {
	remote, err := c.lastOf(ctx)
	if err != nil || remote.MaxTXID == 0 {
		return err == nil, err // nothing was shipped in this epoch yet
	}
	ours, err := header(remote.MaxTXID)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // it is behind, or a copy of the directory went another way
	}
	if err != nil {
		return false, err
	}
	shipped, err := c.header(ctx, remote)
	return err == nil && ours == shipped, err
}
