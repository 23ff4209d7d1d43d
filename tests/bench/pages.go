//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A pagesConfig says which live queries are opened, by the module that browsers load: as
// many as Count, with one filter after the other.
type pagesConfig struct {
	URL     string   `json:"url"`
	Count   int      `json:"count"`
	Filters []string `json:"filters"`
	Limit   int      `json:"limit"`
}

// A pagesCommand is answered with a report, when all pages show the rows that are wanted,
// as [server.listed] writes them, one after the other or all the same, or it took too long.
type pagesCommand struct {
	Open    *pagesConfig `json:"open,omitempty"`
	Wanted  []string     `json:"wanted,omitempty"`
	Seconds float64      `json:"seconds"`
	Restart bool         `json:"restart"` // counts the requests of each page from here on
}

// A pagesReport holds sums over all pages, since they were opened.
type pagesReport struct {
	Lists        int           // requests for rows
	MostRequests int           // of any kind, of one page
	Streams      int           // that were opened
	CPU          time.Duration // of the process
	Right        int           // pages
	Since        int64         // when the last page came to show what it does, in Unix nanoseconds
	Wrong        string        // the first page that isn't right
}

// pages are live queries in a Node process.
type pages struct {
	*process
	count int
	in    io.WriteCloser
	enc   *json.Encoder
	dec   *json.Decoder
}

// openPages returns when all pages have been live.
func (b *bench) openPages(s *server, count, limit int, filters []string) (*pages, error) {
	module, err := exec.CommandContext(b.ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("node", filepath.Join(filepath.Dir(string(module)), "tests", "bench", "pages.mjs"))
	started, in, out, err := startPiped(cmd)
	if err != nil {
		return nil, fmt.Errorf("%w; live queries run in Node 20 or later", err)
	}
	p := &pages{process: started, count: count, in: in, enc: json.NewEncoder(in), dec: json.NewDecoder(out)}
	config := &pagesConfig{URL: "http://" + s.addr, Count: count, Limit: limit, Filters: filters}
	if _, err := p.ask(pagesCommand{Open: config}); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *pages) ask(command pagesCommand) (report pagesReport, err error) {
	if err := p.enc.Encode(command); err != nil {
		return report, err
	}
	if err := p.dec.Decode(&report); err != nil {
		return report, errors.New("the pages' process ended early; see its message above, and run: make pb_public/vendor/pocketbase.es.mjs")
	}
	return report, nil
}

// untilRight returns when all pages show the rows that are wanted, or an error if one
// still doesn't when the limit is over.
func (p *pages) untilRight(limit time.Duration, wanted ...string) (pagesReport, error) {
	report, err := p.ask(pagesCommand{Wanted: wanted, Seconds: limit.Seconds()})
	if err == nil && report.Right != p.count {
		err = fmt.Errorf("%d of %d pages are right after %s: %s", report.Right, p.count, limit, report.Wrong)
	}
	return report, err
}

func (p *pages) close() {
	p.in.Close()
	p.end(syscall.SIGKILL)
}

var patience = &http.Client{Timeout: 30 * time.Second}

// patch changes a record.
func (s *server) patch(token, collection, id, body string) error {
	request, err := http.NewRequest(http.MethodPatch, "http://"+s.addr+"/api/collections/"+collection+"/records/"+id, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", token)
	response, err := patience.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("PATCH was answered %s: %s", response.Status, answer)
	}
	return nil
}

// listed returns the rows that the server lists to a guest, as pages write them.
func (s *server) listed(filter string, limit int) (string, error) {
	query := url.Values{"filter": {filter}, "perPage": {fmt.Sprint(limit)}, "sort": {"-created,-id"}, "skipTotal": {"1"}}
	response, err := patience.Get("http://" + s.addr + "/api/collections/aiContent/records?" + query.Encode())
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var list struct {
		Items []struct{ Id, Updated string }
	}
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		return "", err
	}
	var rows []string
	for _, row := range list.Items {
		rows = append(rows, row.Id+row.Updated)
	}
	return strings.Join(rows, ","), nil
}
