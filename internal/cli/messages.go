package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/front/admin"
)

// Formats of messages that are looked at.
const (
	formatText = "text"
	formatJSON = "json"
	formatHex  = "hex"
)

// Bodies in an answer, bytes.
const (
	bodyText  = 1024
	bodyLines = 64 << 10
	bodyMost  = 64 << 10
)

// messageFormat is how messages are printed, as flags say.
type messageFormat struct {
	format  string
	json    bool
	maxBody int
}

func (f *messageFormat) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.format, "format", formatText, "how bodies are shown: text, on one line; json, indented; or hex")
	cmd.Flags().IntVar(&f.maxBody, "max-body", 0, "bytes of each body that are shown, at most 65536 (default 1024; with --json 65536)")
	jsonFlag(cmd, &f.json)
	must(cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{formatText, formatJSON, formatHex}, cobra.ShellCompDirectiveNoFileComp)))
}

// must is for what can't fail: a flag that was defined the line before.
func must(err error) {
	if err != nil {
		panic("cli: " + err.Error())
	}
}

// check refuses what can't be, and fills in what depends on the format.
func (f *messageFormat) check(cmd *cobra.Command) error {
	switch {
	case !slices.Contains([]string{formatText, formatJSON, formatHex}, f.format):
		return usagef("--format %q: want text, json or hex", f.format)
	case f.json && cmd.Flags().Changed("format"):
		return usagef("--json and --format %s: --json prints lines of JSON for programs, --format is for people; give one", f.format)
	case f.maxBody < 0 || f.maxBody > bodyMost:
		return usagef("--max-body %d: want a number from 0 to %d; --whole shows all of each body", f.maxBody, bodyMost)
	case cmd.Flags().Changed("max-body"):
	case f.json:
		f.maxBody = bodyLines
	default:
		f.maxBody = bodyText
	}
	return nil
}

// jsonStored is a message as `peek --json` and `tail --json` print it.
type jsonStored struct {
	Partition     int32             `json:"partition"`
	Offset        int64             `json:"offset"`
	ID            string            `json:"id"`
	TimestampNs   json.Number       `json:"timestamp_ns"`
	Key           *string           `json:"key,omitempty"`
	KeyBase64     *string           `json:"key_base64,omitempty"`
	Name          *string           `json:"name,omitempty"`
	NameBase64    *string           `json:"name_base64,omitempty"`
	HeadersBase64 map[string][]byte `json:"headers_base64,omitempty"`
	SizeBytes     int               `json:"size_bytes"`
	Truncated     bool              `json:"truncated,omitempty"`
	State         string            `json:"state,omitempty"`
	Attempts      *uint16           `json:"attempts,omitempty"`
	DueAt         int64             `json:"due_at,omitempty"`
	DeadlineAt    int64             `json:"deadline_at,omitempty"`
	DeliveredAt   int64             `json:"delivered_at,omitempty"`
	Consumer      string            `json:"consumer,omitempty"`
	Body          *string           `json:"body,omitempty"`
	BodyBase64    *string           `json:"body_base64,omitempty"`
}

// textOrBase64 gives bytes as text where they are text.
func textOrBase64(b []byte) (text, encoded *string) {
	if b == nil {
		return nil, nil
	}
	if utf8.Valid(b) {
		s := string(b)
		return &s, nil
	}
	s := base64.StdEncoding.EncodeToString(b)
	return nil, &s
}

// messageWriter prints messages that are looked at.
type messageWriter struct {
	*messageFormat
	out     io.Writer
	buf     bytes.Buffer
	printed int
	cut     int // bodies of which only a part was shown
}

// write prints messages; now is the time of the answer, unix ms.
func (w *messageWriter) write(items []admin.Message, now int64) error {
	w.buf.Reset()
	for i := range items {
		m := &items[i]
		w.printed++
		if m.Truncated {
			w.cut++
		}
		if w.json {
			if err := w.line(m); err != nil {
				return fmt.Errorf("format message: %w", err)
			}
			continue
		}
		w.text(m, now)
	}
	if _, err := w.out.Write(w.buf.Bytes()); err != nil {
		return failf(exitFailure, "write messages: %w", err)
	}
	return nil
}

func (w *messageWriter) line(m *admin.Message) error {
	l := jsonStored{
		Partition: m.Partition, Offset: m.Offset, ID: m.ID, TimestampNs: json.Number(m.TimestampNs), HeadersBase64: m.Headers,
		SizeBytes: m.Size, Truncated: m.Truncated, State: m.State, DueAt: m.DueAt, DeadlineAt: m.DeadlineAt, DeliveredAt: m.DeliveredAt, Consumer: m.Consumer,
	}
	if m.State != "" {
		l.Attempts = &m.Attempts
	}
	l.Key, l.KeyBase64 = textOrBase64(m.Key)
	l.Name, l.NameBase64 = textOrBase64(m.Name)
	body := m.Body
	if body == nil {
		body = []byte{}
	}
	l.Body, l.BodyBase64 = textOrBase64(body)
	return printJSONLine(&w.buf, l)
}

// text prints where a message is, what it is, and its body.
func (w *messageWriter) text(m *admin.Message, now int64) {
	b := &w.buf
	place := strconv.Itoa(int(m.Partition))
	if m.Partition < 0 {
		place = "-"
	}
	fmt.Fprintf(b, "%s/%d  %s", place, m.Offset, time.UnixMilli(m.TimestampAt).Format("2006-01-02T15:04:05.000Z07:00"))
	for _, f := range fieldsOf(m, now) {
		b.WriteString("  " + f)
	}
	more := ""
	if m.Truncated {
		more = fmt.Sprintf("…(%s more)", size(int64(m.Size-len(m.Body))))
	}
	switch w.format {
	case formatHex:
		fmt.Fprintf(b, "  %s\n%s", size(int64(m.Size)), hex.Dump(m.Body))
	case formatJSON:
		b.WriteByte('\n')
		at := b.Len()
		if json.Indent(b, m.Body, "", "  ") != nil {
			b.Truncate(at)
			escape(b, m.Body, true)
		}
	default:
		b.WriteString("  ")
		escape(b, m.Body, false)
		b.WriteString(more + "\n")
		return
	}
	if more != "" {
		b.WriteString(more + "\n")
	} else if w.format == formatJSON {
		b.WriteByte('\n')
	}
}

// fieldsOf are what is known of a message beside its place and time.
func fieldsOf(m *admin.Message, now int64) (out []string) {
	add := func(name string, value []byte) {
		var b bytes.Buffer
		escape(&b, value, false)
		out = append(out, name+"="+b.String())
	}
	if m.Key != nil {
		add("key", m.Key)
	}
	if m.Name != nil {
		add("name", m.Name)
	}
	if m.State != "" {
		out = append(out, "attempts="+strconv.Itoa(int(m.Attempts)))
	}
	if m.Consumer != "" {
		add("consumer", []byte(m.Consumer))
	}
	if m.DeliveredAt > 0 {
		out = append(out, "held="+about(now-m.DeliveredAt))
	}
	if m.DeadlineAt > 0 {
		out = append(out, "timeout_in="+about(m.DeadlineAt-now))
	}
	if m.DueAt > 0 {
		out = append(out, "due_in="+about(m.DueAt-now))
	}
	return out
}

// about is a duration in ms for people.
func about(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	if d.Abs() >= 10*time.Second {
		return d.Round(time.Second).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

// escape writes bytes as text that does nothing to a terminal; lines keeps ends
// of lines and tabs as they are.
func escape(b *bytes.Buffer, raw []byte, lines bool) {
	for len(raw) > 0 {
		r, n := utf8.DecodeRune(raw)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(b, `\x%02x`, raw[0])
		case unicode.IsPrint(r) || lines && (r == '\n' || r == '\t'):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			b.WriteString(strings.Trim(strconv.Quote(string(r)), `"`))
		default:
			fmt.Fprintf(b, `\u%04x`, r)
		}
		raw = raw[n:]
	}
}
