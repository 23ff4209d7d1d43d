//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// A figure is one cell of the tables, and what it was with the binaries of both
// revisions, round by round.
type figure struct {
	table, row, column string
	before, now        []float64
}

// compare runs the parts with the PocketRiver of another revision and with that of the
// work tree, in turns, and tables the ratio of each figure. Those of programs that are the
// same in both, such as stock PocketBase, tell how much of a ratio is noise.
func (b *bench) compare(revision string, parts []string) error {
	before := filepath.Join(b.dir, "pocketriver-before")
	if err := b.buildRevision(revision, before); err != nil {
		return err
	}
	var order []string // of the figures
	figures := map[string]*figure{}
	for round := range b.rounds {
		binaries := []string{before, b.ours}
		if round%2 == 1 {
			binaries[0], binaries[1] = binaries[1], binaries[0]
		}
		for _, binary := range binaries {
			progress("round %d: %s", round+1, filepath.Base(binary))
			one := *b
			one.rounds, one.ours = 1, binary
			one.tables, one.targets = nil, &table{}
			if err := one.runParts(parts); err != nil {
				return err
			}
			for _, t := range one.tables {
				for _, row := range t.rows {
					order = noteRow(figures, order, t, row, binary == before)
				}
			}
		}
	}

	result := &table{
		title: "This work tree against " + revision,
		notes: []string{"medians of each, and the ratio; the rows of other programs tell the noise"},
		head:  []string{"figure", "before", "now", "now / before"},
	}
	for _, key := range order {
		f := figures[key]
		was, is := median(f.before), median(f.now)
		if was == 0 || is == 0 {
			continue
		}
		result.add(f.table+", "+f.row+": "+f.column, strconv.FormatFloat(was, 'g', 4, 64), strconv.FormatFloat(is, 'g', 4, 64), ratio(is/was))
	}
	b.tables = append(b.tables, result)
	return nil
}

// noteRow adds the figures of a table's row, whose name is all of its cells that are none.
func noteRow(figures map[string]*figure, order []string, t *table, row []string, before bool) []string {
	name := row[0]
	for _, cell := range row[1:] {
		if _, err := strconv.ParseFloat(cell, 64); err != nil && cell != "-" && !strings.Contains(cell, "–") {
			name += ", " + cell
		}
	}
	for i, cell := range row {
		value, err := strconv.ParseFloat(cell, 64)
		if err != nil || i == 0 {
			continue
		}
		key := t.title + "\x00" + name + "\x00" + t.head[i]
		f := figures[key]
		if f == nil {
			f = &figure{table: t.title, row: name, column: t.head[i]}
			figures[key] = f
			order = append(order, key)
		}
		if before {
			f.before = append(f.before, value)
		} else {
			f.now = append(f.now, value)
		}
	}
	return order
}

// buildRevision builds the PocketRiver of a revision of this repository. Files that are
// not in it, but that its build embeds, are those of the work tree.
func (b *bench) buildRevision(revision, binary string) error {
	progress("building PocketRiver at %s", revision)
	tree := filepath.Join(b.dir, "before")
	run := func(dir, name string, args ...string) (string, error) {
		command := exec.CommandContext(b.ctx, name, args...)
		command.Dir = dir
		output, err := command.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, output)
		}
		return strings.TrimSpace(string(output)), nil
	}
	top, err := run("", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	if _, err := run(top, "git", "worktree", "add", "--detach", tree, revision); err != nil {
		return err
	}
	defer run(top, "git", "worktree", "remove", "--force", tree)
	if err := os.CopyFS(filepath.Join(tree, "pb_public", "vendor"), os.DirFS(filepath.Join(top, "pb_public", "vendor"))); err != nil {
		return err
	}
	_, err = run(tree, "go", "build", "-o", binary, ".")
	return err
}
