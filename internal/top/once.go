package top

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/tidings-io/tidings/internal/front/admin"
)

// Snapshot is the cluster at one moment; of the lists it has the one that was
// asked for.
type Snapshot struct {
	Overview *admin.Overview               `json:"overview"`
	Topics   *admin.Page[admin.TopicRow]   `json:"topics,omitempty"`
	Channels *admin.Page[admin.ChannelRow] `json:"channels,omitempty"`
}

// A node that nobody has asked for a while knows no rates before a second look.
const (
	secondLook = 1100 * time.Millisecond
	looks      = 4
)

// Take asks for a snapshot. It takes a second where rates are not measured yet.
func Take(ctx context.Context, o Options) (*Snapshot, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	snap := &Snapshot{Overview: new(admin.Overview)}
	for look := 1; ; look++ {
		*snap.Overview = admin.Overview{}
		if err := o.Source.Get(ctx, "overview", nil, snap.Overview); err != nil {
			return nil, err
		}
		if snap.Overview.Totals.InRate != nil || look == looks {
			break
		}
		select {
		case <-time.After(secondLook):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s := o.screen()
	q := url.Values{"sort": {s.order()}, "limit": {strconv.Itoa(o.Limit)}}
	if o.Filter != "" {
		q.Set("q", o.Filter)
	}
	switch s.kind {
	case topicsKind:
		snap.Topics = new(admin.Page[admin.TopicRow])
		return snap, o.Source.Get(ctx, "topics", q, snap.Topics)
	case channelsKind:
		snap.Channels = new(admin.Page[admin.ChannelRow])
		return snap, o.Source.Get(ctx, "channels", q, snap.Channels)
	}
	snap.Overview.Nodes = sortedNodes(snap.Overview.Nodes, &s)
	return snap, nil
}

// screen is the first one.
func (o *Options) screen() screen {
	s := newScreen(kindOf(o.View))
	if o.Sort != "" {
		s.sort, s.down = strings.CutPrefix(o.Sort, "-")
	}
	s.filter = o.Filter
	return s
}

// Print writes a snapshot as text without colours. It has all columns; nothing
// is cut.
func (snap *Snapshot) Print(w io.Writer, o Options) error {
	s := o.screen()
	m := &model{theme: theme{}, overview: snap.Overview, stack: []screen{s}}
	m.tookOverview(snap.Overview)
	total := 0
	switch {
	case snap.Topics != nil:
		m.topics, total = &admin.TopicRows{Rows: make(map[string]admin.TopicRow)}, snap.Topics.Total
		for _, t := range snap.Topics.Items {
			m.topics.Order = append(m.topics.Order, t.Name)
			m.topics.Rows[t.Name] = t
		}
	case snap.Channels != nil:
		m.channels, total = &admin.ChannelRows{Rows: make(map[string]admin.ChannelRow)}, snap.Channels.Total
		for _, c := range snap.Channels.Items {
			name := c.Topic + "/" + c.Name
			m.channels.Order = append(m.channels.Order, name)
			m.channels.Rows[name] = c
		}
	}
	rows := m.rows()
	var b strings.Builder
	snap.printHead(&b, m)
	cols, width := whole(columnsOf(s.kind), rows)
	t := table{cols: cols, width: width, sort: s.sort, down: s.down, name: width}
	for _, line := range t.lines(rows) {
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	if more := total - len(rows); more > 0 {
		fmt.Fprintf(&b, "  and %d more\n", more)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (snap *Snapshot) printHead(b *strings.Builder, m *model) {
	o := snap.Overview
	t := &o.Totals
	state, _ := m.health()
	fmt.Fprintf(b, "%s   %s   %s   %s   %s\n", state, words(len(o.Nodes), "node"), words(t.Topics, "topic"), words(t.Channels, "channel"), words(t.Consumers, "consumer"))
	oldest := age(t.OldestAgeMs)
	if t.Oldest != nil {
		oldest += " " + t.Oldest.Topic + "/" + t.Oldest.Channel
	}
	fmt.Fprintf(b, "in %s/s   out %s/s   backlog %d   waiting %d   in flight %d   deferred %d   oldest %s\n",
		rate(t.InRate), rate(t.OutRate), t.Backlog, t.Waiting, t.InFlight, t.Deferred, oldest)
	for i := range o.Findings {
		f := &o.Findings[i]
		next := ""
		if f.Next != "" {
			next = " → " + clean(f.Next)
		}
		fmt.Fprintf(b, "%s %s%s\n", severity(f.Severity).text, clean(f.Text), next)
	}
	if o.FindingsMore > 0 {
		fmt.Fprintf(b, "  and %d more\n", o.FindingsMore)
	}
	b.WriteString("\n")
}

// whole makes columns as wide as what they hold, and says how wide the table is.
func whole(cols []column, rows []row) (out []column, width int) {
	out = append(out, cols...)
	width = 2 + nameMin
	for i := range out {
		out[i].width = ansi.StringWidth(out[i].title) + 1 // and the arrow
		for _, r := range rows {
			out[i].width = max(out[i].width, ansi.StringWidth(r.cells[i].text))
		}
		if i > 0 {
			width += out[i].width + gap
		}
	}
	return out, width - nameMin + max(out[0].width, nameMin)
}
