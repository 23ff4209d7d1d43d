package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// Configured reports whether there is a replica.
func (r *Recovery) Configured() bool { return r != nil && r.bucket != nil }

// Try writes, reads and deletes an object of the replica, as a server does, and returns how far
// this machine's clock is ahead of the store's.
func (r *Recovery) Try(ctx context.Context) (skew time.Duration, err error) {
	if f, ok := r.bucket.(folder); ok && f.isMissing() {
		return 0, fmt.Errorf("there is no folder %s: is its disk mounted? A server that starts makes it", f)
	}
	key := "trial-" + newId()
	content := []byte("A trial of the store. It may be deleted.")
	put := func() error { return r.bucket.Put(ctx, key, bytes.NewReader(content), int64(len(content)), true) }
	if err := put(); err != nil {
		return 0, fmt.Errorf("cannot write: %w", err)
	}
	defer func() {
		if deleteErr := r.bucket.Delete(ctx, []string{key}); err == nil && deleteErr != nil {
			err = fmt.Errorf("cannot delete: %w", deleteErr)
		}
	}()
	if err := put(); !errors.Is(err, errExists) {
		return 0, errors.Join(errIgnoresCondition, err)
	}
	read, err := readAll(ctx, r.bucket, key)
	if err != nil {
		return 0, fmt.Errorf("cannot read: %w", err)
	}
	if !bytes.Equal(read, content) {
		return 0, errors.New("what is read is not what was written")
	}
	if _, err := r.bucket.List(ctx, epochsDir, ""); err != nil {
		return 0, fmt.Errorf("cannot list: %w", err)
	}
	before := time.Now()
	clock, err := r.bucket.Clock(ctx)
	if err != nil {
		return 0, fmt.Errorf("cannot read the store's clock: %w", err)
	}
	after := time.Now()
	middle := before.Add(after.Sub(before) / 2)
	return middle.Sub(clock).Round(time.Second), nil
}

// UsesS3 reports whether the replica is in a bucket of a store.
func (r *Recovery) UsesS3() bool {
	_, ok := r.bucket.(*s3Bucket)
	return ok
}

// SameDisk reports whether the replica is a folder on the disk of the data directory.
func (r *Recovery) SameDisk() bool {
	f, ok := r.bucket.(folder)
	return ok && sameDevice(string(f), r.local.dataDir)
}
