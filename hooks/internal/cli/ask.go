package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

const (
	lookEvery = 200 * time.Millisecond // at the request
	slowStart = 15 * time.Second       // without a server that takes the request
)

type askOptions struct {
	workflow, message, input, user string
	wait                           time.Duration
	asJSON                         bool
}

func (c *commands) newAskCommand() *cobra.Command {
	var options askOptions
	command := &cobra.Command{
		Use:   "ask",
		Short: "Asks ModelRiver through a running server and shows the answer",
		Long: `Asks ModelRiver through a running server, as a page does that creates a record in
aiRequests, waits for the answer and shows it. It costs what the workflow costs.

If it ends before the answer came, the request goes on: the answer is stored all the same.`,
		Example: `  modelriver ask --workflow story --message "A lighthouse"
  modelriver ask --workflow story --input input.json --user 4q1xlclmfloku33
  jq '.messages[0].content = "rain"' input.json | modelriver ask --workflow poem --input - --json`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			input, err := options.readInput(command.InOrStdin())
			if err != nil {
				return err
			}
			if err := c.openData(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(command.Context(), os.Interrupt)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, options.wait)
			defer cancel()
			return c.ask(ctx, command.OutOrStdout(), command.ErrOrStderr(), options, input)
		},
	}
	command.SetContext(context.Background()) // of its own if it is run without one
	flags := command.Flags()
	flags.StringVar(&options.workflow, "workflow", "", "the workflow's name in ModelRiver")
	flags.StringVar(&options.message, "message", "", "what the user says")
	flags.StringVar(&options.input, "input", "", "file with the workflow's input, a JSON object; - for standard input")
	flags.StringVar(&options.user, "user", "", "id of the user whose the answer is to be (default: everybody's)")
	flags.DurationVar(&options.wait, "wait", 5*time.Minute, "how long to wait for the answer")
	flags.BoolVar(&options.asJSON, "json", false, "print the answer's record as JSON, for scripts")
	return command
}

// readInput returns the input that is asked for, or why there is none.
func (o askOptions) readInput(stdin io.Reader) (json.RawMessage, error) {
	switch {
	case o.workflow == "":
		return nil, errors.New("name the workflow with --workflow")
	case (o.message == "") == (o.input == ""):
		return nil, errors.New("say what to ask: either --message TEXT or --input FILE")
	case o.message != "":
		return json.Marshal(map[string]any{"messages": []map[string]string{{"role": "user", "content": o.message}}})
	}
	content, err := readPayloadFile(stdin, []string{o.input})
	if err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(content, &members); err != nil || members == nil {
		return nil, fmt.Errorf("--input %s: it is not a JSON object", o.input)
	}
	return content, nil
}

// ask creates the request, which a running server sees within seconds, and waits for what
// becomes of it.
func (c *commands) ask(ctx context.Context, out, progress io.Writer, options askOptions, input json.RawMessage) error {
	requests, err := c.app.FindCollectionByNameOrId(store.Requests)
	if err != nil {
		return err
	}
	if err := c.checkUser(options.user); err != nil {
		return err
	}
	request := core.NewRecord(requests)
	request.Set("workflow", options.workflow)
	request.Set("input", input)
	request.Set("userId", options.user)
	if err := c.app.Save(request); err != nil {
		return err
	}
	fmt.Fprintf(progress, "request %s\n", request.Id)
	if options.user == "" {
		fmt.Fprintln(progress, "Without --user, its answer is everybody's to read.")
	}
	request, err = c.awaitEnd(ctx, progress, request.Id)
	if err != nil {
		return err
	}
	if request.GetString("state") == store.Failed {
		return errors.New("the request failed: " + oneLine(request.GetString("error")))
	}
	answer, err := c.app.FindRecordById(store.Content, request.GetString("record"))
	if err != nil {
		return fmt.Errorf("the answer %s is not there any more: %w", request.GetString("record"), err)
	}
	return printAnswer(out, answer, options.asJSON)
}

// checkUser refuses a user who does not exist: the answer would be nobody's, and costs the same.
func (c *commands) checkUser(id string) error {
	if id == "" {
		return nil
	}
	collections, err := c.app.FindAllCollections(core.CollectionTypeAuth)
	if err != nil {
		return err
	}
	for _, collection := range collections {
		if _, err := c.app.FindRecordById(collection, id); err == nil {
			return nil
		}
	}
	return fmt.Errorf("--user %s: there is no such user: take the id from the collection users in the dashboard", id)
}

// awaitEnd returns the request when it has been answered or has failed.
func (c *commands) awaitEnd(ctx context.Context, progress io.Writer, id string) (*core.Record, error) {
	began, state, told := time.Now(), store.Queued, false
	for {
		request, err := c.app.FindRecordById(store.Requests, id)
		if err != nil {
			return nil, fmt.Errorf("request %s: %w", id, err)
		}
		if now := request.GetString("state"); now != state {
			state = now
			fmt.Fprintf(progress, "%s after %s\n", state, shown(time.Since(began)))
		}
		if state == store.Answered || state == store.Failed {
			return request, nil
		}
		if state == store.Queued && request.GetInt("attempts") == 0 && !told && time.Since(began) > slowStart {
			told = true
			fmt.Fprintf(progress, "No server has taken it yet: is one running on %s?\n", c.app.DataDir())
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("request %s is still %s: its answer is stored when it comes", id, state)
		case <-time.After(lookEvery):
		}
	}
}

func printAnswer(out io.Writer, answer *core.Record, asJSON bool) error {
	if asJSON {
		return printJSON(out, answer.PublicExport())
	}
	text := strings.TrimSpace(answer.GetString("body"))
	if text == "" {
		text = answer.GetString("data")
	}
	_, err := fmt.Fprintf(out, "\n%s\n\n%s\n\nrecord %s\n", oneLine(answer.GetString("title")), printable(text), answer.Id)
	return err
}
