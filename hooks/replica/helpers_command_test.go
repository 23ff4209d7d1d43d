package replica

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/plugins/migratecmd"
	"github.com/spf13/cobra"
)

// init turns this test binary into a host whose node TEST_HOST configures, with commands of its own.
func init() {
	var config Config
	if json.Unmarshal([]byte(os.Getenv("TEST_HOST")), &config) != nil {
		return
	}
	node, err := Open(config)
	if err != nil {
		log.Fatal(err)
	}
	app := pocketbase.NewWithConfig(pocketbase.Config{DBConnect: node.Connect})
	node.Register(app, app.RootCmd)
	app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.InstallerFunc = nil
		return e.Next()
	})
	if os.Getenv("TEST_MIGRATE") != "" {
		core.AppMigrations.Register(migrateHost, nil, "4000000000_host.go")
	}
	migratecmd.MustRegister(app, app.RootCmd, migratecmd.Config{})
	var failed error
	for name, run := range hostCommands {
		app.RootCmd.AddCommand(&cobra.Command{Use: name, RunE: func(_ *cobra.Command, args []string) error {
			failed = run(app, args)
			return failed
		}})
	}
	if err := errors.Join(app.Start(), failed); err != nil {
		log.Fatal(err)
	}
	os.Exit(0)
}

// migrateHost changes what a server has in memory.
func migrateHost(app core.App) error {
	posts := core.NewBaseCollection("posts")
	posts.Fields.Add(&core.TextField{Name: "title"}, &core.AutodateField{Name: "created", OnCreate: true})
	posts.AddIndex("posts_title", true, "title", "")
	app.Settings().Meta.AppName = "of a migration"
	return errors.Join(app.Save(posts), app.Save(app.Settings()))
}

var hostCommands = map[string]func(app core.App, args []string) error{
	// post saves a record for each title in one transaction, and waits to be told where one is "wait".
	"post": func(app core.App, titles []string) error {
		return app.RunInTransaction(func(tx core.App) error {
			for _, title := range titles {
				if title == "wait" {
					fmt.Println("waits")
					if answer, _ := bufio.NewReader(os.Stdin).ReadString('\n'); answer != "yes\n" {
						return errors.New("not wanted")
					}
					continue
				}
				if err := addPost(tx, title); err != nil {
					return err
				}
			}
			return nil
		})
	},

	// again saves records with one title.
	"again": func(app core.App, args []string) error {
		return errors.Join(addPost(app, args[0]), addPost(app, args[0]))
	},

	// read tells how many rows a table has, and what's in them.
	"read": func(app core.App, args []string) error {
		rows, err := app.DB().Select("b").From(args[0]).OrderBy("rowid").Rows()
		if err != nil {
			return err
		}
		defer rows.Close()
		hash, n := sha256.New(), 0
		for ; rows.Next(); n++ {
			var b []byte
			if err := rows.Scan(&b); err != nil {
				return err
			}
			hash.Write(b)
		}
		fmt.Printf("%d %x\n", n, hash.Sum(nil))
		return rows.Err()
	},

	"backup": func(app core.App, _ []string) error {
		return app.CreateBackup(app.(*pocketbase.PocketBase).RootCmd.Context(), "a.zip")
	},

	"other-serve": func(app core.App, _ []string) error {
		return app.OnServe().Trigger(&core.ServeEvent{App: app})
	},
}

func addPost(app core.App, title string) error {
	posts, err := app.FindCachedCollectionByNameOrId("posts")
	if err != nil {
		return err
	}
	record := core.NewRecord(posts)
	record.Set("title", title)
	return app.Save(record)
}

// A command is a process of a host beside the servers of a cluster.
type command struct {
	*exec.Cmd
	in  *os.File
	out *bufio.Reader
	err bytes.Buffer
}

// command starts one on the machine of a node, in that folder.
func (c *cluster) command(t testing.TB, i int, dir string, args ...string) *command {
	t.Helper()
	config, err := json.Marshal(c.configs[i])
	if err != nil {
		t.Fatal(err)
	}
	p := &command{Cmd: exec.CommandContext(t.Context(), os.Args[0], append(args, "--dev=false", "--dir", dir)...)}
	p.Env = append(os.Environ(), "TEST_HOST="+string(config))
	p.Cmd.Stderr = &p.err
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, kept, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); kept.Close() })
	p.in, p.out, p.Stdin = kept, bufio.NewReader(out), in
	return p
}

// serve starts servers on nodes, as processes of their own.
func (c *cluster) serve(t testing.TB, which ...int) (servers [3]*command) {
	t.Helper()
	for _, i := range which {
		servers[i] = c.command(t, i, filepath.Dir(c.paths[i]), "serve", "--http", "127.0.0.1:0")
		servers[i].Env = append(servers[i].Env, "TEST_MIGRATE=1")
		if err := servers[i].Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { servers[i].Process.Kill(); servers[i].Wait() })
	}
	return servers
}

// run runs a command that must succeed, and returns what it printed.
func (p *command) run(t testing.TB) string {
	t.Helper()
	out, err := p.try(t)
	if err != nil {
		t.Fatalf("%v: %v: %s%s", p.Args[1:], err, out, &p.err)
	}
	return out
}

// try runs a command that may fail.
func (p *command) try(t testing.TB) (out string, err error) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	p.out.WriteTo(&all)
	return all.String(), p.Wait()
}

// mustFail runs a command that must fail and say this.
func (p *command) mustFail(t testing.TB, says ...string) {
	t.Helper()
	out, err := p.try(t)
	for _, s := range says {
		if err == nil || !strings.Contains(p.err.String(), s) {
			t.Errorf("%v: want %q, got %v: %s%s", p.Args[1:], s, err, out, &p.err)
		}
	}
}

// await waits until a command that was started prints a line.
func (p *command) await(t testing.TB, want string) {
	t.Helper()
	if line, err := p.out.ReadString('\n'); err != nil || line != want+"\n" {
		t.Fatalf("%v: got %q, %v: %s", p.Args[1:], line, err, &p.err)
	}
}

// remote returns the database as a command on a node has it, in this process.
func (c *cluster) remote(t testing.TB, i int) *sql.DB {
	t.Helper()
	p, err := newPeer(c.configs[i])
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(leaderConnector{p})
	t.Cleanup(func() { db.Close(); p.client.CloseIdleConnections() })
	return db
}
