package tests

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var packOnce = sync.OnceValues(func() (string, error) {
	// The tools are there; a test does not bring them while others use them.
	out, err := inRepository("make", "-s", "package", "-o", "pb_public/vendor/pocketbase.es.mjs", "DIST="+buildDir).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make package: %w\n%s", err, out)
	}
	packed, err := filepath.Glob(filepath.Join(buildDir, "pocketriver-*.tgz"))
	if err == nil && len(packed) != 1 {
		err = fmt.Errorf("make package made %q, want one file", packed)
	}
	return strings.Join(packed, ""), err
})

// packPackage packs the npm package once and returns the tarball's path.
func packPackage(t testing.TB) string {
	t.Helper()
	path, err := packOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// packedFiles returns the files of a package's tarball, by name.
func packedFiles(t testing.TB, path string) map[string]string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(content)
	}
}

// An npmApp is a fresh app of somebody else, in which the packed package is installed.
type npmApp struct{ Dir string }

// installApp makes the app of testdata/app.
func installApp(t testing.TB) npmApp {
	t.Helper()
	app := npmApp{t.TempDir()}
	if err := os.CopyFS(app.Dir, os.DirFS(filepath.Join("testdata", "app"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(packPackage(t), filepath.Join(app.Dir, "pocketriver.tgz")); err != nil {
		t.Fatal(err)
	}
	app.Run(t, "npm", "ci", "--prefer-offline", "--no-audit", "--no-fund")
	return app
}

// Tool runs one of the app's tools in it.
func (app npmApp) Tool(t testing.TB, name string, args ...string) {
	t.Helper()
	app.Run(t, filepath.Join(app.Dir, "node_modules", ".bin", name), args...)
}

// Run runs a command in the app and returns what it wrote.
func (app npmApp) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = app.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// StreamEnded waits until a stream of the tab has ended: only then is it timed.
func (p *tab) StreamEnded() {
	p.t.Helper()
	p.Wait(`performance.getEntriesByType("resource").some((entry) => entry.name.endsWith("/api/realtime") && entry.initiatorType !== "fetch")`)
}
