//go:build linux

package main

import (
	"encoding/gob"
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

const fullPragmas = "?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=journal_size_limit(200000000)&_pragma=synchronous(FULL)&_pragma=foreign_keys(ON)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-32000)"

// runStockFull is stock PocketBase, but for synchronous=FULL.
func runStockFull() error {
	app := pocketbase.NewWithConfig(pocketbase.Config{
		DBConnect: func(path string) (*dbx.DB, error) {
			if filepath.Base(path) != "data.db" {
				return core.DefaultDBConnect(path)
			}
			return dbx.Open("sqlite", path+strings.Replace(fullPragmas, "_txlock=immediate&", "", 1))
		},
	})
	return app.Start()
}

// runVerifyOnly is a server that does nothing about a webhook but to check its
// signature: what Go's HTTP server and the HMAC cost.
func runVerifyOnly() error {
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	addr := flags.String("http", "", "")
	flags.String("dir", "", "")
	if err := flags.Parse(os.Args[2:]); err != nil { // after "serve"
		return err
	}
	verifier, err := modelriver.NewVerifier(secret)
	if err != nil {
		return err
	}
	http.HandleFunc("GET /api/health", func(w http.ResponseWriter, r *http.Request) {})
	http.HandleFunc("POST /webhooks/modelriver", func(w http.ResponseWriter, r *http.Request) {
		payload, err := io.ReadAll(r.Body)
		if err == nil {
			err = verifier.Verify(r.Header, payload)
		}
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, `{"received":true}`)
	})
	log.SetFlags(0)
	return http.ListenAndServe(*addr, nil)
}

// An insertConfig says how rows are inserted straight into a database.
type insertConfig struct {
	Dir      string // a data directory
	Batch    int    // webhooks, of two rows each, in one transaction
	Duration time.Duration
}

type insertResult struct {
	Count     int
	Took, CPU time.Duration
	Memory    int64
}

// runInserts inserts the rows of as many webhooks as SQLite takes, by prepared SQL and
// with synchronous=FULL.
func runInserts() error {
	dec, enc := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	var config insertConfig
	if err := dec.Decode(&config); err != nil {
		return err
	}
	db, err := dbx.Open("sqlite", filepath.Join(config.Dir, "data.db")+fullPragmas)
	if err != nil {
		return err
	}
	defer db.Close()
	db.DB().SetMaxOpenConns(1)

	cpu, begin := ownCPU(), time.Now()
	result := insertResult{}
	for time.Since(begin) < config.Duration {
		err := db.Transactional(func(tx *dbx.Tx) error {
			content, callback := insertContent(tx).Prepare(), insertCallback(tx).Prepare()
			defer content.Close()
			defer callback.Close()
			for range config.Batch {
				at := time.Now().UTC().Format(dateLayout)
				name := channel(result.Count)
				id := name[:8] + name[channelLength-7:]
				if _, err := content.Bind(contentRow(id, name, at, sampleDescription, sampleData)).Execute(); err != nil {
					return err
				}
				if _, err := callback.Bind(callbackRow(id, "pending", at)).Execute(); err != nil {
					return err
				}
				result.Count++
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	result.Took, result.CPU = time.Since(begin), ownCPU()-cpu
	if err := enc.Encode(result); err != nil {
		return err
	}
	// The parent reads this process's memory, then closes stdin.
	if err := dec.Decode(&config); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
