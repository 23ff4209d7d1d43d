//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	_ "github.com/pocketriver/pocketriver/migrations"
)

const dateLayout = "2006-01-02 15:04:05.000Z"

// makeData creates a data directory that every server is started with a copy of: the
// plugin's collections, which stock PocketBase serves as well, and a superuser. Anyone
// may create records, which is the cheapest that PocketBase's REST API can do; public
// also drops the rule by which a viewer sees only own and public records.
func makeData(dir string, public bool, fill func(app core.App) error) error {
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: dir})
	if err := app.Bootstrap(); err != nil {
		return err
	}
	defer app.ResetBootstrapState()
	if err := app.RunAllMigrations(); err != nil {
		return err
	}

	content, err := app.FindCollectionByNameOrId("aiContent")
	if err != nil {
		return err
	}
	content.CreateRule = types.Pointer("")
	if public {
		content.ListRule = types.Pointer("")
		content.ViewRule = types.Pointer("")
	}
	if err := app.Save(content); err != nil {
		return err
	}

	superusers, err := app.FindCollectionByNameOrId(core.CollectionNameSuperusers)
	if err != nil {
		return err
	}
	superuser := core.NewRecord(superusers)
	superuser.SetEmail("bench@example.com")
	superuser.SetRandomPassword()
	if err := app.Save(superuser); err != nil {
		return err
	}
	if fill != nil {
		if err := fill(app); err != nil {
			return err
		}
	}
	_, err = app.NonconcurrentDB().NewQuery("PRAGMA wal_checkpoint(TRUNCATE)").Execute()
	return err
}

// addUsers creates users and returns a token of each. They share one password, which
// takes longer to make than all else about them.
func addUsers(app core.App, count int) (tokens []string, err error) {
	users, err := app.FindCollectionByNameOrId("users")
	if err != nil {
		return nil, err
	}
	first := core.NewRecord(users)
	first.SetRandomPassword()
	password := first.GetRaw("password").(*core.PasswordFieldValue)
	err = app.RunInTransaction(func(tx core.App) error {
		for i := range count {
			user := core.NewRecord(users)
			user.SetEmail(fmt.Sprintf("viewer%d@example.com", i))
			user.RefreshTokenKey()
			user.SetRaw("password", &core.PasswordFieldValue{Hash: password.Hash})
			if err := tx.SaveNoValidate(user); err != nil {
				return err
			}
			token, err := user.NewAuthToken()
			if err != nil {
				return err
			}
			tokens = append(tokens, token)
		}
		return nil
	})
	return tokens, err
}

// superuserToken returns a token for the superuser of makeData.
func superuserToken(app core.App) (string, error) {
	superuser, err := app.FindAuthRecordByEmail(core.CollectionNameSuperusers, "bench@example.com")
	if err != nil {
		return "", err
	}
	return superuser.NewAuthToken()
}

// addContent inserts small records that were stored, and called back, during a month.
// Their ids and channels are in order, so that they are quickly inserted, and spread
// over the whole range, so that later ones fall between them.
func addContent(app core.App, rows int) error {
	const batch = 100_000
	const month = 30 * 24 * 3600
	for from := 0; from < rows; from += batch {
		params := dbx.Params{
			"from": from, "to": min(from+batch, rows), "rows": rows, "digits": "0123456789abcdefghijklmnopqrstuvwxyz",
			"begin": time.Now().Unix() - month, "step": float64(month) / float64(rows),
			"title": sampleTitle, "category": sampleCategory, "metadata": sampleMetadata, "event": sampleEvent,
		}
		const old = `
			WITH RECURSIVE
				numbers(i) AS (SELECT {:from} UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < {:to}),
				spread(i, k) AS (SELECT i, i * 46656 / {:rows} FROM numbers),
				old(i, id, at) AS (SELECT i,
					substr({:digits}, k / 1296 + 1, 1) || substr({:digits}, k / 36 % 36 + 1, 1) || substr({:digits}, k % 36 + 1, 1) || printf('%012d', i),
					strftime('%Y-%m-%d %H:%M:%fZ', {:begin} + i * {:step}, 'unixepoch') FROM spread)`
		err := app.RunInTransaction(func(tx core.App) error {
			_, err := tx.NonconcurrentDB().NewQuery(old + `
				INSERT INTO aiContent (id, title, body, category, metadata, data, channelId, eventName, userId, source, created, updated)
				SELECT id, {:title}, 'A short text.', {:category}, {:metadata}, '{"title":"Old","description":"A short text."}',
					printf('%08x-01d0-4000-8000-%012d', i * 4294967295 / {:rows}, i), {:event}, '', 'modelriver', at, at FROM old`).Bind(params).Execute()
			if err != nil {
				return err
			}
			_, err = tx.NonconcurrentDB().NewQuery(old + `
				INSERT INTO modelriverCallbacks (id, record, url, host, body, state, attempts, nextAttempt, expires, lastStatus, lastError, deliveredAt, payload, created, updated)
				SELECT id, id, 'https://api.modelriver.com/v1/callback/' || id, 'api.modelriver.com:443', '{"data":{}}', 'delivered', 1, at, at, 200, '', at, '', at, at FROM old`).Bind(params).Execute()
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func insertContent(db dbx.Builder) *dbx.Query {
	return db.NewQuery(`INSERT INTO aiContent
		(id, title, body, category, metadata, data, channelId, eventName, userId, source, created, updated) VALUES
		({:id}, {:title}, {:body}, {:category}, {:metadata}, {:data}, {:channelId}, {:eventName}, '', 'modelriver', {:at}, {:at})`)
}

func contentRow(id, channelId, at, body, data string) dbx.Params {
	return dbx.Params{
		"id": id, "title": sampleTitle, "body": body, "category": sampleCategory, "metadata": sampleMetadata, "data": data,
		"channelId": channelId, "eventName": sampleEvent, "at": at,
	}
}

func insertCallback(db dbx.Builder) *dbx.Query {
	return db.NewQuery(`INSERT INTO modelriverCallbacks
		(id, record, url, host, body, state, attempts, nextAttempt, expires, lastStatus, lastError, deliveredAt, payload, created, updated) VALUES
		({:id}, {:record}, {:url}, {:host}, {:body}, {:state}, 2, {:at}, {:at}, 503, '', '', '', {:at}, {:at})`)
}

func callbackRow(id, state, at string) dbx.Params {
	return dbx.Params{
		"id": id, "record": id, "url": "http://127.0.0.1:1/v1/callback/" + id, "host": "127.0.0.1:1",
		"body": `{"data":` + sampleData + `,"task_id":"pocketbase_` + id + `"}`, "state": state, "at": at,
	}
}

// copyData copies the databases of a closed data directory.
func copyData(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"data.db", "auxiliary.db"} {
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(target, source); err != nil {
		target.Close()
		return err
	}
	return target.Close()
}

// openData opens a server's database to look into it.
func openData(s *server) (*dbx.DB, error) {
	return dbx.Open("sqlite", "file:"+filepath.Join(s.dir, "pb_data", "data.db")+"?mode=ro&_pragma=busy_timeout(10000)")
}

// changeData runs a statement on the database of a server that does not run.
func changeData(dir, statement string, params dbx.Params) error {
	db, err := dbx.Open("sqlite", filepath.Join(dir, "pb_data", "data.db")+fullPragmas)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.NewQuery(statement).Bind(params).Execute()
	return err
}

func countRows(db *dbx.DB, table, where string) (n int, err error) {
	err = db.NewQuery("SELECT COUNT(*) FROM " + table + " WHERE " + where).Row(&n)
	return n, err
}
