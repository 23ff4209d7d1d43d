//go:build linux

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks"
	"github.com/pocketriver/pocketriver/hooks/replica"
)

// logEnv is the configuration of a server of the role node whose database has a log.
const logEnv = "BENCH_LOG"

// Which of three nodes is measured.
const (
	leader   = "leader"
	follower = "follower"
	eachNode = "each" // requests come to all of them
)

// node measures what it costs one server that its database has a log, and three that they share one, on one machine.
func (b *bench) node() error {
	samples, err := b.sideBySide("Nodes whose database has a log, all on this machine (off: one without)", func() (groups [][]variant) {
		for _, v := range b.ownVariants() {
			v.kind = b.nodeKind("")
			one := v.with("log", logEnv+"={}")
			v.kind.nodes = leader
			toLeader := v.with("of 3, to the one that leads")
			v.kind.nodes = follower
			toFollower := v.with("of 3, to another one")
			v.kind.nodes = eachNode
			toEach := v.with("of 3, to each")
			v.kind.nodes = ""
			groups = append(groups, []variant{v.with("off"), one, toLeader, toFollower, toEach})
		}
		return groups
	})
	if err != nil {
		return err
	}
	for _, connections := range b.connections {
		for _, v := range b.ownVariants() {
			rps := func(name string) []sample { return samples[ingestCell{connections, v.name + " " + name}] }
			b.target(fmt.Sprintf("%d connections, %s: rps with a log / off", connections, v.name), ratioOf(rps("log"), rps("off"), rpsOf), "≥", 0.85)
			b.target(fmt.Sprintf("%d connections, %s: rps of three nodes, to the one that leads / off", connections, v.name),
				ratioOf(rps("of 3, to the one that leads"), rps("off"), rpsOf), "≥", 0.5)
		}
	}
	return nil
}

// nodes measures what viewers wait for at each of three nodes, and how long one that has lost everything takes to be one again.
func (b *bench) nodes() error {
	t := &table{
		title: "Viewers at three nodes, all on this machine",
		head:  []string{"viewers at each node", "webhooks/s", "measured at", "answer p50 ms", "p99 ms", "to the last viewer p50 ms", "p99 ms", "faults"},
	}
	for _, row := range []struct{ viewers, rate int }{{200, webhookRate}, {2000, 5}, {2000, webhookRate}} {
		phase := loadPhase{Duration: max(b.duration, 5*time.Second), Rate: float64(row.rate)}
		for _, which := range []string{"", leader, follower} {
			kind := b.nodeKind(which)
			kind.fresh = false
			s, err := b.show(variant{name: "nodes", kind: kind, rows: 1}, audience{count: row.viewers}, fanoutConns, phase)
			if err != nil {
				return fmt.Errorf("%d viewers at the %s: %w", row.viewers, which, err)
			}
			name := cmp.Or(which, "one server without others")
			progress("nodes  %5d viewers  %2d/s  %-25s answer p50 %s ms  last p50 %s p99 %s ms  %+v", row.viewers, row.rate, name, ms(s.ack50), ms(s.last50), ms(s.last99), s.faults)
			t.add(fmt.Sprint(row.viewers), fmt.Sprint(row.rate), name, ms(s.ack50), ms(s.ack99), ms(s.last50), ms(s.last99), fmt.Sprintf("%+v", s.faults))
		}
	}
	b.tables = append(b.tables, t)

	t = &table{title: "A node that has lost everything, beside two that run", head: []string{"records", "database MB", "answers after s", "memory at most MB"}}
	for _, records := range []int{100_000, million} {
		if err := b.catchUp(t, records); err != nil {
			return err
		}
	}
	b.tables = append(b.tables, t)
	return nil
}

// catchUp measures a node that starts with nothing where the others have so many records.
func (b *bench) catchUp(t *table, records int) error {
	progress("nodes: inserting %d records", records)
	data := filepath.Join(b.dir, "many")
	defer os.RemoveAll(data)
	if err := makeData(data, true, func(app core.App) error { return addContent(app, records) }); err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(data, "data.db"))
	if err != nil {
		return err
	}
	kind := b.nodeKind(leader)
	kind.fresh = false
	s, _, err := b.serve(kind, data)
	if err != nil {
		return err
	}
	defer s.stop()
	lost := s.others[0]
	lost.end(syscall.SIGKILL)
	if err := os.RemoveAll(filepath.Join(lost.dir, "pb_data")); err != nil {
		return err
	}
	began := time.Now()
	again, err := b.startAt(lost.kind, lost.dir, lost.addr)
	if err != nil {
		return err
	}
	defer again.end(syscall.SIGKILL)
	if err := again.waitHealthy(); err != nil {
		return err
	}
	took := time.Since(began)
	db, err := openData(again)
	if err != nil {
		return err
	}
	defer db.Close()
	if got, err := countRows(db, "aiContent", "true"); err != nil || got != records {
		return errors.Join(fmt.Errorf("%d of %d records are there", got, records), err)
	}
	progress("nodes  %d records  %s s", records, seconds(took))
	t.add(fmt.Sprint(records), mb(info.Size()), seconds(took), mb(again.mostMemory()))
	return nil
}

// nodeKind is a server of the role node: one of three, if nodes says which.
func (b *bench) nodeKind(nodes string) serverKind {
	kind := b.oursKind()
	kind.binary, kind.args, kind.fresh, kind.nodes = b.self, []string{"node"}, true, nodes
	return kind
}

// serveNodes starts three nodes, and returns the one that is measured.
func (b *bench) serveNodes(kind serverKind, dir string) (s *server, took time.Duration, err error) {
	names, peers := []string{"n1", "n2", "n3"}, map[string]string{}
	for _, name := range names {
		if peers[name], err = freeAddrs(); err != nil {
			return nil, 0, err
		}
	}
	certs := filepath.Join(dir, "certs")
	if err := beginNodes(dir, names[0], certs, names); err != nil {
		return nil, 0, err
	}
	began := time.Now()
	var all []*server
	defer func() {
		for _, other := range all {
			if err != nil {
				other.end(syscall.SIGKILL)
			} else if other != s {
				s.others = append(s.others, other)
			}
		}
	}()
	for _, name := range names {
		config, err := json.Marshal(replica.Config{Node: name, Peers: peers, Certs: filepath.Join(certs, name)})
		if err != nil {
			return nil, 0, err
		}
		addr, err := freeAddr()
		if err != nil {
			return nil, 0, err
		}
		one := kind
		one.nodes, one.env = "", append([]string{logEnv + "=" + string(config)}, kind.env...)
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return nil, 0, err
		}
		started, err := b.startAt(one, filepath.Join(dir, name), addr)
		if err != nil {
			return nil, 0, err
		}
		started.root, started.kind = dir, one
		all = append(all, started)
	}
	for _, node := range all {
		if err := node.waitHealthy(); err != nil {
			return nil, 0, err
		}
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		for _, node := range all {
			if leads, err := node.leads(); err == nil && leads == (kind.nodes != follower) {
				for _, other := range all {
					if kind.nodes == eachNode && other != node {
						node.also = append(node.also, other.addr)
					}
				}
				return node, time.Since(began), nil
			}
		}
	}
	return nil, 0, errors.New("no node leads after a minute")
}

// beginNodes makes the database that nodes begin with, of the data in the directory if there is some, and their certificates.
func beginNodes(dir, first, certs string, names []string) error {
	data := filepath.Join(dir, "pb_data")
	if err := os.MkdirAll(filepath.Join(dir, first), 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	if err := os.Rename(data, filepath.Join(dir, first, "pb_data")); err != nil {
		return err
	}
	return errors.Join(replica.WriteCerts(certs, names...), replica.Seed(filepath.Join(dir, first, "pb_data", "data.db")))
}

func (s *server) leads() (bool, error) {
	response, err := http.Get("http://" + s.addr + "/leads")
	if err != nil {
		return false, err
	}
	response.Body.Close()
	return response.StatusCode == http.StatusNoContent, nil
}

// freeAddrs returns an address whose port and the next one nobody listens at.
func freeAddrs() (string, error) {
	for {
		addr, err := freeAddr()
		if err != nil {
			return "", err
		}
		host, port, _ := net.SplitHostPort(addr)
		number, _ := strconv.Atoi(port)
		if listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(number+1))); err == nil {
			return addr, listener.Close()
		}
	}
}

// runNode is what the binary is to webhooks, with a log if it is asked for.
func runNode() error {
	debug.SetGCPercent(200)
	connect, register := core.DBConnectFunc(hooks.DBConnect), func(*pocketbase.PocketBase, *hooks.Config) {}
	if text := os.Getenv(logEnv); text != "" {
		var config replica.Config
		if err := json.Unmarshal([]byte(text), &config); err != nil {
			return err
		}
		node, err := replica.Open(config)
		if err != nil {
			return err
		}
		connect, register = node.Connect, func(app *pocketbase.PocketBase, config *hooks.Config) {
			node.Register(app, app.RootCmd)
			config.Node = node
			app.OnServe().BindFunc(func(e *core.ServeEvent) error {
				e.Router.GET("/leads", func(e *core.RequestEvent) error {
					if !node.Leads() {
						return e.NoContent(http.StatusConflict)
					}
					return e.NoContent(http.StatusNoContent)
				})
				return e.Next()
			})
		}
	}
	app := pocketbase.NewWithConfig(pocketbase.Config{DBConnect: connect})
	config, err := hooks.ConfigFromEnv()
	if err != nil {
		return err
	}
	register(app, &config)
	hooks.MustRegister(app, app.RootCmd, config)
	return app.Start()
}
