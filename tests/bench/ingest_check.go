//go:build linux

package main

import (
	"fmt"
	"net"
	"time"

	"github.com/pocketbase/dbx"
)

// checkStored compares what was answered 200 with what is there.
func checkStored(db *dbx.DB, v variant, receiver *helper, before, answered int) error {
	stored, err := countRows(db, "aiContent", "true")
	if err != nil {
		return err
	}
	if stored-before != answered {
		return fmt.Errorf("%d webhooks were answered 200, but %d records are stored", answered, stored-before)
	}
	if v.rows == 2 {
		state := "pending"
		if v.waits {
			state = "delivered"
		}
		// Callbacks that were there before have no host.
		callbacks, err := countRows(db, "modelriverCallbacks", "state = '"+state+"' AND host LIKE '127.0.0.1:%'")
		if err != nil {
			return err
		}
		if callbacks != answered {
			return fmt.Errorf("%d webhooks were answered 200, but %d callbacks are %s", answered, callbacks, state)
		}
	}
	if receiver != nil {
		var report receiverReport
		if err := receiver.ask("report", &report); err != nil {
			return err
		}
		if report.Distinct != answered || report.Total != answered || report.WithoutKey > 0 {
			return fmt.Errorf("%d webhooks were answered 200, but %d callbacks arrived, %d of them different, %d without the key",
				answered, report.Total, report.Distinct, report.WithoutKey)
		}
	}
	return nil
}

// checkSameRecord sends one webhook to each program and compares the records, so that
// all are measured at the same work.
func (b *bench) checkSameRecord() error {
	type row struct {
		Title     string `db:"title"`
		Body      string `db:"body"`
		Category  string `db:"category"`
		Metadata  string `db:"metadata"`
		Data      string `db:"data"`
		ChannelId string `db:"channelId"`
		EventName string `db:"eventName"`
		UserId    string `db:"userId"`
		Source    string `db:"source"`
	}
	var first row
	for _, v := range b.variants() {
		if v.reuse || v.alone || v.callback {
			continue
		}
		record, err := func() (r row, err error) {
			s, _, err := b.serve(v.kind, b.privateData)
			if err != nil {
				return r, err
			}
			defer s.stop()
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				return r, err
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			if err := (&loadConn{conn, make([]byte, 16<<10)}).exchange(request(v.kind.request, s.addr, "", "", 1)); err != nil {
				return r, err
			}
			db, err := openData(s)
			if err != nil {
				return r, err
			}
			defer db.Close()
			return r, db.NewQuery("SELECT title, body, category, metadata, data, channelId, eventName, userId, source FROM aiContent").One(&r)
		}()
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		if first.Title == "" {
			first = record
		}
		if !sameJSON(record.Metadata, first.Metadata) || !sameJSON(record.Data, first.Data) {
			return fmt.Errorf("%s stores other JSON:\n%+v\n%+v", v.name, record, first)
		}
		record.Metadata, record.Data = first.Metadata, first.Data
		if record != first {
			return fmt.Errorf("%s stores another record:\n%+v\n%+v", v.name, record, first)
		}
	}
	return nil
}
