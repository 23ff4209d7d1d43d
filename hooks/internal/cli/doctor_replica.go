package cli

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// checkReplica tries the replica's store, and finds what a restore would not bring back.
func (c *commands) checkReplica(ctx context.Context, _ *url.URL) []Finding {
	if c.options.Several {
		findings := []Finding{{"replica", gradeOK, "none; most of the nodes have what was answered 200", ""}}
		if c.hasUploads() {
			findings = append(findings, Finding{"replica", gradeWarning, "the files that users uploaded are on this node's disk alone, and others don't find them",
				"In the dashboard, Settings, Files storage, have PocketBase keep them in S3."})
		}
		return findings
	}
	if !c.options.Replica.Configured() {
		if backups := c.app.Settings().Backups; c.app.IsBootstrapped() && backups.Cron != "" && backups.S3.Enabled {
			return []Finding{{"replica", gradeOK, "none; backups are made by schedule, and kept in S3", ""}}
		}
		return []Finding{{"replica", gradeWarning, "none: this disk is the only place that has what was answered 200",
			"Set REPLICA_URL to a folder on another disk, or to a bucket; or see that backups are made and kept elsewhere."}}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*doctorTimeout)
	defer cancel()
	var findings []Finding
	add := func(g grade, text, remedy string) {
		findings = append(findings, Finding{"replica", g, text, remedy})
	}
	skew, err := c.options.Replica.Try(ctx)
	switch {
	case err != nil:
		add(gradeProblem, err.Error(), "Changes are not shipped until that is mended.")
	case skew > maxClockSkew || skew < -maxClockSkew:
		add(gradeProblem, fmt.Sprintf("this machine's clock is %s from the store's", skew.Abs().Round(time.Second)), "Set it: a store refuses requests that are dated wrong, and a restore to a time would miss it.")
	default:
		add(gradeOK, "an object was written, read and deleted", "")
	}
	if bundle := os.Getenv("AWS_CA_BUNDLE"); bundle != "" && c.options.Replica.UsesS3() {
		add(gradeWarning, "AWS_CA_BUNDLE is set, and is not read", "If the store's certificate needs it, set SSL_CERT_FILE to the same file.")
	}
	if c.options.Replica.SameDisk() {
		add(gradeWarning, "it is on the same disk as the data", "It is lost with the data. Use another disk, or a bucket.")
	}
	if c.hasUploads() {
		add(gradeWarning, "it holds data.db only: the files that users uploaded are on this disk alone",
			"In the dashboard, Settings, Files storage, have PocketBase keep them in S3, or back up pb_data/storage.")
	}
	return findings
}

// hasUploads reports whether files that users uploaded are on this disk, and new ones come there.
func (c *commands) hasUploads() bool {
	uploads, err := os.ReadDir(filepath.Join(c.app.DataDir(), "storage"))
	return err == nil && len(uploads) > 0 && !c.app.Settings().S3.Enabled
}
