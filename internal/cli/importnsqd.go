package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/front/admin"
	"github.com/tidings-io/tidings/internal/importer"
	"github.com/tidings-io/tidings/internal/nsqdata"
)

func newImport(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "import", Short: "Take over the backlog of another server", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newImportNSQD(s))
	return cmd
}

// importNSQD is a run of `tidings import nsqd`.
type importNSQD struct {
	s              streams
	path           string
	srv            *server
	topics         []string
	dryRun, asJSON bool
	patience       time.Duration
}

func newImportNSQD(s streams) *cobra.Command {
	r := importNSQD{s: s}
	cmd := &cobra.Command{
		Use: "nsqd DATA-PATH", Short: "Take over what an nsqd left in its data folder", Args: args(cobra.ExactArgs(1)),
		Long: `Read the data folder of an nsqd that is stopped, and bring its topics, channels,
pauses and messages into a running node or cluster. Each channel gets exactly
what it had not finished in nsqd, with the number of attempts; what waited in a
topic waits here. Topics and channels that are here already keep what they
have, and their producers and consumers go on meanwhile.

The folder is only read, and no nsqd can start on it meanwhile. When the import
is interrupted, however hard, or the node is, run it again: it goes on where it
was, and nothing is there twice. A topic that was imported is passed over, unless
its messages in the folder have changed since, or it was deleted here.

Messages get new ids and the time of the import. What nsqd had deferred is due
at once: nsqd does not keep the time. A message that is damaged on disk can't
be imported; a note says where, and everything else is.

A node that has no cluster takes all on itself; in a cluster any node will do.`,
		Example: `  tidings import nsqd /var/lib/nsqd --dry-run
  tidings import nsqd /var/lib/nsqd
  tidings import nsqd /var/lib/nsqd --topic orders --admin 10.0.0.2:4180`,
		RunE: func(cmd *cobra.Command, words []string) error {
			r.path = words[0]
			return r.run(cmd.Context())
		},
	}
	r.srv = adminFlags(cmd)
	cmd.Flags().StringArrayVar(&r.topics, "topic", nil, "only this topic (repeatable)")
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "only show what is there; needs no node")
	cmd.Flags().DurationVar(&r.patience, "patience", time.Minute, "how long to go on asking a node that can't be reached or has no leader")
	jsonFlag(cmd, &r.asJSON)
	return cmd
}

// importReport is what the command prints with --json.
type importReport struct {
	Path   string         `json:"path"`
	DryRun bool           `json:"dry_run"`
	Topics []importTopic  `json:"topics"`
	Notes  []nsqdata.Note `json:"notes"`
}

type importTopic struct {
	Topic  string `json:"topic"`
	Paused bool   `json:"paused"`
	// Of the topic's own queue.
	Messages int64           `json:"messages"`
	Bytes    int64           `json:"bytes"`
	Files    int             `json:"files"`
	Channels []importChannel `json:"channels"`
	// Each message once, however many channels have it.
	Distinct int64 `json:"distinct_messages"`
	Imported int64 `json:"imported"` // by this run
	Before   int64 `json:"imported_before"`
}

type importChannel struct {
	Channel  string `json:"channel"`
	Paused   bool   `json:"paused"`
	Messages int64  `json:"messages"`
	Bytes    int64  `json:"bytes"`
	Files    int    `json:"files"`
}

func (r *importNSQD) run(ctx context.Context) error {
	folder, err := openNSQData(r.path)
	if err != nil {
		return err
	}
	defer func() { _ = folder.Close() }()
	topics, err := r.chosen(folder)
	if err != nil {
		return err
	}
	if !r.dryRun { // before all is read
		if err := r.srv.admin(ctx, http.MethodGet, "/api/cluster", nil, new(struct{})); err != nil {
			return err
		}
	}
	report := importReport{Path: r.path, DryRun: r.dryRun, Topics: []importTopic{}, Notes: slices.Clone(folder.Notes)}
	surveys, err := r.survey(ctx, topics, &report)
	if err != nil {
		return interrupted(ctx, err)
	}
	if !r.dryRun {
		if err := r.bring(ctx, surveys, &report); err != nil {
			return err
		}
	}
	return r.print(&report)
}

func openNSQData(path string) (*nsqdata.Folder, error) {
	folder, err := nsqdata.Open(path)
	switch {
	case errors.Is(err, nsqdata.ErrInUse):
		return nil, failf(exitConflict, "%w: stop it first (SIGTERM, so that it writes what it has in memory)", err)
	case errors.Is(err, nsqdata.ErrNoData):
		return nil, failf(exitNotFound, "%w: want the folder of its --data-path, with nsqd.dat and *.diskqueue.*", err)
	case errors.Is(err, fs.ErrNotExist):
		return nil, failf(exitNotFound, "%w", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, failf(exitDenied, "%w", err)
	}
	return folder, err
}

// chosen are the topics that the command is about.
func (r *importNSQD) chosen(folder *nsqdata.Folder) ([]*nsqdata.Topic, error) {
	if len(r.topics) == 0 {
		return folder.Topics, nil
	}
	var topics []*nsqdata.Topic
	for _, name := range r.topics {
		i := slices.IndexFunc(folder.Topics, func(t *nsqdata.Topic) bool { return t.Name == name })
		if i < 0 {
			return nil, failf(exitNotFound, "there is no topic %s in %s; --dry-run shows what there is", name, r.path)
		}
		if !slices.Contains(topics, folder.Topics[i]) {
			topics = append(topics, folder.Topics[i])
		}
	}
	return topics, nil
}

// survey reads all once, and notes what is there.
func (r *importNSQD) survey(ctx context.Context, topics []*nsqdata.Topic, report *importReport) ([]*nsqdata.Survey, error) {
	p := newProgress(r.s.err, 0)
	defer p.end()
	read := 0
	i := importer.New(importer.Options{Progress: func(n int) { read += n; p.at(read) }})
	var surveys []*nsqdata.Survey
	for _, t := range topics {
		s, err := i.Survey(ctx, t)
		if err != nil {
			return nil, err
		}
		if r.dryRun {
			s.Forget()
		}
		surveys = append(surveys, s)
		report.Notes = append(report.Notes, s.Notes...)
		topic := importTopic{
			Topic: t.Name, Paused: t.Paused, Messages: s.Waiting.Messages, Bytes: s.Waiting.Bytes, Files: t.Queue.Files(),
			Distinct: s.Handed + s.Topical, Channels: []importChannel{},
		}
		for k, c := range t.Channels {
			n := s.Each[k]
			topic.Channels = append(topic.Channels, importChannel{c.Name, c.Paused, n.Messages, n.Bytes, c.Queue.Files()})
		}
		report.Topics = append(report.Topics, topic)
	}
	return surveys, nil
}

// bring imports the topics, and notes how many messages came.
func (r *importNSQD) bring(ctx context.Context, surveys []*nsqdata.Survey, report *importReport) error {
	total, done, before := 0, 0, 0
	for _, s := range surveys {
		total += int(s.Handed + s.Topical)
	}
	p := newProgress(r.s.err, total)
	defer p.end()
	i := importer.New(importer.Options{
		Target: &adminTarget{r.srv}, Patience: r.patience,
		Progress: func(n int) { done += n; p.at(done) },
		Passed:   func(n int) { before += n; p.total -= n },
	})
	for k, s := range surveys {
		out, err := i.Import(ctx, s)
		report.Topics[k].Imported, report.Topics[k].Before = out.Now, out.Before
		if err != nil {
			p.end()
			return r.broken(ctx, err, before+done, total)
		}
	}
	return nil
}

// broken says how an import that did not come to its end goes on.
func (r *importNSQD) broken(ctx context.Context, err error, done, total int) error {
	if err = interrupted(ctx, err); errors.Is(err, context.Canceled) {
		err = failf(exitFailure, "interrupted")
	}
	code := exitCode(err)
	switch fault.CodeOf(err) {
	case fault.InvalidRequest, fault.OutOfOrder:
		code = exitConflict
	case fault.DiskReserve:
		err = fmt.Errorf("%w: free space on the node's disk", err)
	}
	return failf(code, "%w\n%d of %d messages are imported; the same command goes on from there", err, done, total)
}

// interrupted is err, or that the user ended the command.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return failf(exitFailure, "interrupted")
	}
	return err
}

func (r *importNSQD) print(report *importReport) error {
	if report.Notes == nil {
		report.Notes = []nsqdata.Note{}
	}
	for _, n := range report.Notes {
		kind := "note"
		if n.Damage {
			kind = "DAMAGE"
		}
		if !r.asJSON {
			fmt.Fprintf(r.s.err, "%s: %s %s\n", kind, n.File, n.Text)
		}
	}
	if r.asJSON {
		return printJSON(r.s.out, report)
	}
	var rows [][]string
	row := func(t importTopic, channel string, paused bool, messages, bytes int64, files int, distinct string) {
		state := "-"
		if paused {
			state = "paused"
		}
		rows = append(rows, []string{t.Topic, channel, num(messages), num(bytes), num(int64(files)), state, distinct})
	}
	var imported, before int64
	for _, t := range report.Topics {
		row(t, "-", t.Paused, t.Messages, t.Bytes, t.Files, num(t.Distinct))
		for _, c := range t.Channels {
			row(t, c.Channel, c.Paused, c.Messages, c.Bytes, c.Files, "")
		}
		imported, before = imported+t.Imported, before+t.Before
	}
	if err := table(r.s.out, "TOPIC CHANNEL MESSAGES BYTES FILES STATE DISTINCT", rows); err != nil {
		return err
	}
	if r.dryRun {
		return nil
	}
	text := fmt.Sprintf("imported %d messages of %d topics", imported, len(report.Topics))
	if before > 0 {
		text += fmt.Sprintf("; %d were imported before", before)
	}
	fmt.Fprintln(r.s.err, text)
	return nil
}

// adminTarget brings messages to a node through its admin API.
type adminTarget struct{ srv *server }

var _ importer.Target = (*adminTarget)(nil)

func (t *adminTarget) BeginIngest(ctx context.Context, s *broker.IngestStart) error {
	return t.post(ctx, admin.PathImportBegin, admin.NewImportStart(s))
}

func (t *adminTarget) PauseTopic(ctx context.Context, topic string, _ bool) error {
	return t.post(ctx, admin.PathImportPause, admin.ImportTopic{Topic: topic})
}

func (t *adminTarget) Ingest(ctx context.Context, in *broker.Ingest) error {
	return t.post(ctx, admin.PathImportMessages, admin.NewImportMessages(in))
}

// post asks the node. The error has the code that the node gave it; one that was
// not reached may have done it.
func (t *adminTarget) post(ctx context.Context, path string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	resp, answer, err := t.srv.send(ctx, http.MethodPost, path, nil, body)
	switch {
	case exitCode(err) == exitUnreachable:
		return fault.Wrap(fault.Unreachable, err)
	case exitCode(err) == exitTimeout:
		return fault.Wrap(fault.Timeout, err)
	case err != nil:
		return err
	case resp.StatusCode == http.StatusOK:
		return nil
	}
	var refusal struct{ Code, Message string }
	if err := json.Unmarshal(answer, &refusal); err != nil || refusal.Message == "" {
		return failf(exitFailure, "the node answers with status %d: %s", resp.StatusCode, strings.TrimSpace(string(answer)))
	}
	return fault.New(fault.Named(refusal.Code), "%s", refusal.Message)
}
