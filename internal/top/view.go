package top

import (
	"fmt"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/tidings-io/tidings/internal/front/admin"
)

// The smallest terminal that something can be shown on.
const (
	widthMin  = 20
	heightMin = 4
)

// View is the whole terminal.
func (m *model) View() tea.View {
	v := tea.NewView(strings.Join(m.lines(), "\n"))
	v.AltScreen = true
	v.WindowTitle = "tidings top"
	return v
}

// lines are as many as the terminal has, none wider than it.
func (m *model) lines() []string {
	switch {
	case m.width <= 0 || m.height <= 0:
		return nil
	case m.width < widthMin || m.height < heightMin:
		return []string{cut("too small", m.width)}
	case m.help:
		return m.helpLines()
	}
	out := m.head()
	if m.tabbed() {
		out = append(out, m.tabLine())
	}
	s := m.now()
	rows := m.rows()
	cols := columnsOf(s.kind)
	t := table{theme: m.theme, cols: cols, width: m.width, sort: s.sort, down: s.down, selected: s.selected, name: wants(rows, cols[0].width)}
	first := min(s.first, len(rows))
	room := m.room()
	out = append(out, t.lines(rows[first:min(first+room, len(rows))])...)
	if len(rows) == 0 && room > 0 {
		out = append(out, m.theme.paint(dim, cut("  "+m.nothing(), m.width)))
	}
	foot := m.foot()
	for len(out) < m.height-len(foot) {
		out = append(out, "")
	}
	return append(out[:max(m.height-len(foot), 0)], foot...)
}

// room is how many rows there is space for.
func (m *model) room() int {
	used := len(m.head()) + 1 + len(m.foot())
	if m.tabbed() {
		used++
	}
	return max(m.height-used, 1)
}

// tabbed says that there is space for the line of the lists.
func (m *model) tabbed() bool { return m.height >= 7 }

// nothing says why there are no rows.
func (m *model) nothing() string {
	s := m.now()
	switch {
	case m.gone != "":
		return m.gone
	case m.overview == nil || s.kind == topicsKind && m.topics == nil || s.kind == channelsKind && m.channels == nil || s.kind == consumersKind && m.consumers == nil:
		return "…"
	case s.filter != "":
		return "nothing matches " + s.filter
	case s.kind == findingsKind:
		return "nothing: all is well"
	case s.kind == consumersKind:
		return "no consumer is connected"
	case s.kind == channelsKind:
		return "no channel; `tidings sub TOPIC -C CHANNEL` makes one"
	}
	return "no topic; `tidings pub TOPIC MESSAGE` makes one"
}

// head is what stands above the lists: the cluster, or the channel.
func (m *model) head() []string {
	out := []string{m.statusLine()}
	if m.height >= 10 {
		out = append(out, m.rateLines()...)
	}
	if s := m.now(); s.kind == consumersKind {
		out = append(out, m.channelLines()...)
	} else if s.kind != findingsKind {
		out = append(out, m.findingLines()...)
	}
	if m.height >= 20 {
		out = append(out, "")
	}
	return out
}

// health is how the cluster is in a few words, and its tone.
func (m *model) health() (string, tone) {
	switch o := m.overview; {
	case m.lost != "":
		return "✖ no answer, trying again: " + m.lost, bad
	case o == nil:
		return "… asking", dim
	case o.Healthy:
		return "● healthy", good
	default:
		grave, warnings := graded(o)
		text, as := "", warn
		if grave > 0 {
			text, as = fmt.Sprintf("✖ %d critical ", grave), bad
		}
		if warnings > 0 {
			text += "▲ " + words(warnings, "warning")
		}
		if o.FindingsMore > 0 {
			text += " +" + count(int64(o.FindingsMore))
		}
		return strings.TrimSpace(text), as
	}
}

func graded(o *admin.Overview) (grave, warnings int) {
	for i := range o.Findings {
		switch o.Findings[i].Severity {
		case "critical":
			grave++
		case "warning":
			warnings++
		}
	}
	return grave, warnings
}

func (m *model) statusLine() string {
	text, as := m.health()
	pieces := []string{m.theme.paint(strong, "tidings")}
	if m.paused {
		pieces = append(pieces, m.theme.paint(marked, " PAUSED "))
	}
	const between = "   "
	left := m.width - 2 - len(between) - ansi.StringWidth(strings.Join(pieces, between))
	pieces = append(pieces, m.theme.paint(as, cut(text, left))) // rather a part than nothing
	if o := m.overview; o != nil && m.lost == "" {
		live := 0
		for i := range o.Nodes {
			if o.Nodes[i].State == "live" {
				live++
			}
		}
		nodes := words(len(o.Nodes), "node")
		if live < len(o.Nodes) {
			nodes = m.theme.paint(bad, fmt.Sprintf("%d of %s", live, nodes))
		}
		pieces = append(pieces, nodes, words(o.Totals.Topics, "topic"), words(o.Totals.Channels, "channel"), words(o.Totals.Consumers, "consumer"))
		if o.Shards.Leaderless > 0 {
			pieces = append(pieces, m.theme.paint(bad, words(o.Shards.Leaderless, "shard")+" without leader"))
		}
	}
	return " " + fit(m.width-2, between, pieces...)
}

// rateLines are what goes in and out, and what waits.
func (m *model) rateLines() []string {
	var t admin.Totals
	if m.overview != nil {
		t = m.overview.Totals
	}
	const label, figure, right = 5, 7, 44 // characters
	width := min(max(m.width-label-figure-6-right, 0), historyMax)
	most := 0.0
	for _, r := range [][]float64{m.in, m.out} {
		for _, v := range r[max(len(r)-width, 0):] {
			most = max(most, v)
		}
	}
	line := func(name string, r *float64, values []float64, as tone, rest string) string {
		text := " " + pad(name, label-1, false) + m.theme.paint(strong, pad(rate(r), figure, true)) + "/s  "
		if width >= 8 {
			text += m.theme.paint(as, spark(values, width, most)) + "  "
		}
		return cut(text+rest, m.width-1)
	}
	room := m.width - 1 - label - figure - 4
	if width >= 8 {
		room -= width + 2
	}
	second := "oldest  " + m.theme.paint(strong, age(t.OldestAgeMs))
	if t.Oldest != nil {
		second = fit(room, "  ", second, m.theme.paint(dim, cut(t.Oldest.Topic+"/"+t.Oldest.Channel, max(room-ansi.StringWidth(second)-2, 4))))
	}
	pieces := []string{"backlog " + m.theme.paint(strong, count(t.Backlog))}
	if t.Waiting > 0 {
		pieces = append(pieces, "waiting "+count(t.Waiting))
	}
	pieces = append(pieces, "in flight "+count(t.InFlight), "deferred "+count(t.Deferred))
	return []string{
		line("in", t.InRate, m.in, inflow, fit(room, "  ", pieces...)),
		line("out", t.OutRate, m.out, outflow, second),
	}
}

// findingLines are the gravest findings, as many as there is room for.
func (m *model) findingLines() (out []string) {
	if m.overview == nil || m.height < 12 {
		return nil
	}
	room := 1
	if m.height >= 20 {
		room = 3
	}
	list := m.overview.Findings
	more := len(list) + m.overview.FindingsMore
	for i := range list[:min(len(list), room)] {
		more--
		f := &list[i]
		mark := severity(f.Severity)
		text := clean(f.Text)
		if i == room-1 && more > 0 {
			rest := fmt.Sprintf("  +%d more", more)
			text = cut(text, m.width-4-len(rest)) + m.theme.paint(dim, rest)
		}
		out = append(out, " "+m.theme.paint(mark.tone, mark.text)+" "+cut(text, m.width-4))
	}
	return out
}

// channelLines are the figures of the channel whose consumers are shown.
func (m *model) channelLines() (out []string) {
	s, d := m.now(), m.detail
	if d == nil {
		return []string{""}
	}
	pieces := []string{
		"backlog " + m.theme.paint(strong, count(d.Backlog)), "oldest " + m.theme.paint(strong, age(d.OldestAgeMs)),
		"in " + rate(d.InRate) + "/s", "out " + rate(d.OutRate) + "/s", "in flight " + count(d.InFlight), "deferred " + count(d.Deferred),
		"requeued " + rate(d.RequeueRate) + "/s", "timed out " + rate(d.TimeoutRate) + "/s",
	}
	if d.Paused || d.TopicPaused {
		pieces = slices.Insert(pieces, 0, m.theme.paint(accent, "‖ paused"))
	}
	out = append(out, " "+fit(m.width-2, "  ", pieces...))
	if m.height < 14 {
		return out
	}
	if m.overview != nil {
		for i := range m.overview.Findings {
			f := &m.overview.Findings[i]
			if f.Target.Topic == s.topic && f.Target.Channel == s.channel {
				mark := severity(f.Severity)
				out = append(out, " "+m.theme.paint(mark.tone, mark.text)+" "+cut(clean(f.Text), m.width-4))
				break
			}
		}
	}
	return append(out, m.theme.paint(dim, cut(" $ tidings channel peek "+s.topic+" "+s.channel+" --state in-flight", m.width-1)))
}

// tabLine names the lists, or the way to what is shown, and how much of it.
func (m *model) tabLine() string {
	s := m.now()
	var pieces []string
	if len(m.stack) > 1 {
		way := []string{tabName(m.stack[0].kind)}
		if s.topic != "" {
			way = append(way, s.topic)
		}
		if s.channel != "" {
			way = append(way, s.channel)
		}
		way[len(way)-1] = m.theme.paint(accent, way[len(way)-1])
		pieces = append(pieces, strings.Join(way, m.theme.paint(dim, " › ")))
	} else {
		for i, t := range tabs {
			name := fmt.Sprintf("%d %s", i+1, t.name)
			if t.kind == s.kind {
				name = m.theme.paint(marked, " "+name+" ")
			} else {
				name = m.theme.paint(dim, " "+name+" ")
			}
			pieces = append(pieces, name)
		}
	}
	left := fit(m.width-2, " ", pieces...)
	if len(m.stack) == 1 && ansi.StringWidth(left) < ansi.StringWidth(strings.Join(pieces, " ")) { // at least the current one
		left = fit(m.width-2, " ", pieces[s.kind:]...)
	}
	return " " + apart(m.width-2, left, m.theme.paint(dim, m.extent()))
}

func tabName(k kind) string {
	for _, t := range tabs {
		if t.kind == k {
			return t.name
		}
	}
	return ""
}

// extent says which rows of how many are shown.
func (m *model) extent() string {
	s, rows, total := m.now(), len(m.rows()), 0
	switch {
	case s.kind == topicsKind && m.topics != nil:
		total = m.topics.Total
	case s.kind == channelsKind && m.channels != nil:
		total = m.channels.Total
	case s.kind == consumersKind && m.consumers != nil:
		total = m.consumers.Total
	default:
		total = rows
	}
	text := ""
	if s.filter != "" {
		text = "/" + s.filter + "  "
	}
	if rows == 0 {
		return strings.TrimSpace(text)
	}
	text += fmt.Sprintf("%d–%d of %s", s.first+1, min(s.first+m.room(), rows), count(int64(total)))
	if total > rows {
		text += fmt.Sprintf(", the first %d", rows)
	}
	return text
}

// foot is what stands below the table.
func (m *model) foot() (out []string) {
	s := m.now()
	if f := m.finding(); s.kind == findingsKind && f != nil && m.height >= 12 {
		text := ansi.Wordwrap(clean(f.Text), m.width-4, "")
		lines := strings.Split(text, "\n")
		lines = lines[:min(len(lines), 3)]
		if f.Next != "" {
			lines = append(lines, m.theme.paint(accent, cut("→ "+clean(f.Next), m.width-4)))
		}
		for _, l := range lines {
			out = append(out, "  "+cut(l, m.width-4))
		}
	}
	if m.typing {
		return append(out, cut(" "+m.theme.paint(accent, "/")+s.filter+m.theme.paint(marked, " ")+"  "+m.theme.paint(dim, "part of a name, or * and ?; enter keeps it"), m.width-1))
	}
	hint := func(key, what string) string { return m.theme.paint(strong, key) + " " + m.theme.paint(dim, what) }
	pieces := []string{hint("q", "quit"), hint("?", "help")}
	if s.kind == topicsKind || s.kind == channelsKind || s.kind == findingsKind {
		pieces = append(pieces, hint("↵", "open"))
	}
	if len(m.stack) > 1 {
		pieces = append(pieces, hint("esc", "back"))
	}
	if s.kind != findingsKind {
		pieces = append(pieces, hint("/", "filter"), hint("←→", "sort"), hint("r", "reverse"))
	}
	what := "pause"
	if m.paused {
		what = "go on"
	}
	pieces = append(pieces, hint("p", what), hint("tab", "next list"))
	return append(out, " "+fit(m.width-2, "  ", pieces...))
}

// helpLines is the page of the keys.
func (m *model) helpLines() []string {
	keys := [][2]string{
		{"↑ ↓ j k", "select a row; also PgUp, PgDn, Home, End"},
		{"enter", "a topic's channels, a channel's consumers"},
		{"esc", "clear the filter, or go back"},
		{"1 2 3 4 tab", "topics, channels, nodes, what is wrong"},
		{"/", "filter by part of a name, or * and ?"},
		{"← →", "sort by the column to the left or right"},
		{"r", "reverse the order"},
		{"p", "pause: nothing moves, and nothing is asked"},
		{"q ctrl-c", "quit"},
		{"", ""},
		{"✖ ▲", "critical, warning: 4 tells what it is"},
		{"‖", "paused"},
		{"FLIGHT", "messages that consumers hold"},
		{"OLDEST", "time since the first unfinished was published"},
		{"WAITING", "messages of a topic that no channel was given"},
		{"-", "not measured yet, or there is none"},
	}
	out := []string{" " + m.theme.paint(strong, "tidings top") + m.theme.paint(dim, cut("   any key goes back", m.width-13)), ""}
	for _, k := range keys {
		out = append(out, " "+m.theme.paint(accent, pad(k[0], 12, false))+cut(k[1], m.width-14))
	}
	for len(out) < m.height {
		out = append(out, "")
	}
	return out[:m.height]
}
