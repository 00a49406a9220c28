package top

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-io/tidings/internal/front/admin"
)

// kind is what a screen lists.
type kind uint8

const (
	topicsKind kind = iota
	channelsKind
	nodesKind
	findingsKind
	consumersKind // of one channel; not a tab
)

// tabs are the screens that have a key of their own.
var tabs = []struct {
	kind kind
	name string
}{{topicsKind, "Topics"}, {channelsKind, "Channels"}, {nodesKind, "Nodes"}, {findingsKind, "Findings"}}

// listMax is how many rows a screen has; more are found by filter and order.
const listMax = "200"

// screen is a list and where one stands in it.
type screen struct {
	kind           kind
	topic, channel string // whose channels, whose consumers
	sort           string // key; empty: as it comes
	down           bool
	filter         string
	selected       string // key of the row
	at, first      int    // its place, and the first row that is shown
}

func newScreen(k kind) screen {
	s := screen{kind: k}
	switch k {
	case topicsKind, channelsKind:
		s.sort, s.down = "backlog", true
	case nodesKind:
		s.sort = "name"
	case consumersKind:
		s.sort, s.down = "in_flight", true
	}
	return s
}

// order is the sort key as the admin API takes it.
func (s *screen) order() string {
	if s.down {
		return "-" + s.sort
	}
	return s.sort
}

// watch is what a stream has to show for the screen; empty: the overview has it.
func (s *screen) watch() string {
	q := url.Values{"limit": {listMax}, "sort": {s.order()}}
	if s.filter != "" {
		q.Set("q", s.filter)
	}
	switch s.kind {
	case topicsKind:
		return "topics?" + q.Encode()
	case channelsKind:
		if s.topic != "" {
			q.Set("topic", s.topic)
		}
		return "channels?" + q.Encode()
	case consumersKind:
		return "channel:" + url.PathEscape(s.topic) + "/" + url.PathEscape(s.channel)
	}
	return ""
}

var columns = map[kind][]column{
	topicsKind: {
		{title: "TOPIC", sort: "name", width: 24, text: true},
		{title: "IN/S", sort: "in_rate", width: 6, rank: 2},
		{title: "OUT/S", sort: "out_rate", width: 6, rank: 3},
		{title: "BACKLOG", sort: "backlog", width: 8, rank: 1},
		{title: "OLDEST", sort: "oldest", width: 7, rank: 1},
		{title: "FLIGHT", sort: "in_flight", width: 7, rank: 5},
		{title: "CONS", sort: "consumers", width: 5, rank: 4},
		{title: "WAITING", sort: "waiting", width: 8, rank: 6},
		{title: "DEFER", sort: "deferred", width: 7, rank: 7},
		{title: "CHANS", sort: "channels", width: 6, rank: 8},
		{title: "LOG", sort: "log", width: 9, rank: 9},
	},
	channelsKind: {
		{title: "CHANNEL", sort: "name", width: 28, text: true},
		{title: "IN/S", sort: "in_rate", width: 6, rank: 3},
		{title: "OUT/S", sort: "out_rate", width: 6, rank: 2},
		{title: "BACKLOG", sort: "backlog", width: 8, rank: 1},
		{title: "OLDEST", sort: "oldest", width: 7, rank: 1},
		{title: "FLIGHT", sort: "in_flight", width: 7, rank: 5},
		{title: "CONS", sort: "consumers", width: 5, rank: 4},
		{title: "DEFER", sort: "deferred", width: 7, rank: 6},
		{title: "REQUEUED", sort: "requeued", width: 9, rank: 7},
		{title: "TIMEOUTS", sort: "timed_out", width: 9, rank: 8},
	},
	nodesKind: {
		{title: "NODE", sort: "name", width: 16, text: true},
		{title: "STATE", width: 8, rank: 1, text: true},
		{title: "IN/S", sort: "in_rate", width: 6, rank: 2},
		{title: "OUT/S", sort: "out_rate", width: 6, rank: 3},
		{title: "CONS", sort: "consumers", width: 5, rank: 5},
		{title: "LEADS", sort: "leads", width: 6, rank: 4},
		{title: "SYNC", sort: "sync", width: 8, rank: 6},
		{title: "FREE", sort: "free", width: 9, rank: 7},
		{title: "MEMORY", sort: "memory", width: 9, rank: 8},
		{title: "CONNS", sort: "connections", width: 6, rank: 9},
		{title: "VERSION", width: 14, rank: 10},
	},
	findingsKind: {{title: "WHAT IS WRONG NOW", text: true, width: 40}},
	consumersKind: {
		{title: "CONSUMER", sort: "client", width: 24, text: true},
		{title: "FLIGHT", sort: "in_flight", width: 7, rank: 1},
		{title: "READY", sort: "ready", width: 6, rank: 2},
		{title: "FIN/S", width: 6, rank: 1},
		{title: "REQUEUED", sort: "requeued", width: 9, rank: 4},
		{title: "TIMEOUTS", sort: "timed_out", width: 9, rank: 3},
		{title: "SINCE", sort: "connected", width: 7, rank: 5},
		{title: "FINISHED", sort: "finished", width: 9, rank: 6},
		{title: "NODE", sort: "node", width: 12, rank: 7, text: true},
		{title: "ADDRESS", sort: "address", width: 21, rank: 8, text: true},
		{title: "AGENT", width: 20, rank: 9, text: true},
	},
}

func columnsOf(k kind) []column { return columns[k] }

func number(n int64) cell {
	if n == 0 {
		return cell{"0", dim}
	}
	return cell{count(n), plain}
}

func perSecond(r *float64) cell {
	if r == nil || *r <= 0 {
		return cell{rate(r), dim}
	}
	return cell{rate(r), plain}
}

func aged(ms *int64, grave tone) cell {
	if ms == nil {
		return cell{age(ms), dim}
	}
	return cell{age(ms), grave}
}

// marks are how findings and pauses show before a row.
func (m *model) mark(topic, channel string, paused bool) cell {
	switch m.graves[[2]string{topic, channel}] {
	case "critical":
		return cell{"✖", bad}
	case "warning":
		return cell{"▲", warn}
	}
	if paused {
		return cell{"‖", accent}
	}
	return cell{}
}

func (m *model) topicRows() (rows []row) {
	if m.topics == nil {
		return nil
	}
	for _, name := range m.topics.Order {
		t := m.topics.Rows[name]
		mark := m.mark(t.Name, "", t.Paused)
		rows = append(rows, row{key: t.Name, mark: mark, cells: []cell{
			{t.Name, plain},
			perSecond(t.InRate), perSecond(t.OutRate), number(t.Backlog), aged(t.OldestAgeMs, mark.grave()), number(t.InFlight),
			number(int64(t.Consumers)), number(t.Waiting), number(t.Deferred), number(int64(t.Channels)),
			{size(t.LogBytes), plain},
		}})
	}
	return rows
}

// grave is the tone for what is beside a mark.
func (c cell) grave() tone {
	if c.tone == warn || c.tone == bad {
		return c.tone
	}
	return plain
}

func (m *model) channelRows(ofTopic bool) (rows []row) {
	if m.channels == nil {
		return nil
	}
	for _, key := range m.channels.Order {
		c := m.channels.Rows[key]
		name := key
		if ofTopic {
			name = c.Name
		}
		mark := m.mark(c.Topic, c.Name, c.Paused)
		none := number(int64(c.Consumers))
		if c.Consumers == 0 && c.Backlog > 0 {
			none.tone = warn
		}
		rows = append(rows, row{key: key, mark: mark, cells: []cell{
			{name, plain},
			perSecond(c.InRate), perSecond(c.OutRate), number(c.Backlog), aged(c.OldestAgeMs, mark.grave()), number(c.InFlight),
			none, number(c.Deferred), number(c.Requeued), number(c.TimedOut),
		}})
	}
	return rows
}

// nodeValues are what nodes are sorted by; the overview has all of them.
var nodeValues = map[string]func(*admin.NodeRow) float64{
	"in_rate":     func(n *admin.NodeRow) float64 { return known(n.InRate) },
	"out_rate":    func(n *admin.NodeRow) float64 { return known(n.DeliveredRate) },
	"consumers":   func(n *admin.NodeRow) float64 { return known(n.Consumers) },
	"connections": func(n *admin.NodeRow) float64 { return known(n.Connections) },
	"leads":       func(n *admin.NodeRow) float64 { return float64(n.Leads) },
	"sync":        func(n *admin.NodeRow) float64 { return known(n.SyncMs) },
	"free":        func(n *admin.NodeRow) float64 { return known(n.DiskFree) },
	"memory":      func(n *admin.NodeRow) float64 { return known(n.Memory) },
}

// known is a figure for sorting; what is not known comes below all else.
func known[T int | int64 | float64](v *T) float64 {
	if v == nil {
		return -1
	}
	return float64(*v)
}

// sortedNodes are the nodes that the filter leaves.
func sortedNodes(all []admin.NodeRow, s *screen) []admin.NodeRow {
	list := slices.DeleteFunc(slices.Clone(all), func(n admin.NodeRow) bool {
		return !strings.Contains(strings.ToLower(n.Name), strings.ToLower(s.filter))
	})
	value := nodeValues[s.sort]
	slices.SortStableFunc(list, func(a, b admin.NodeRow) int {
		order := cmp.Compare(a.Name, b.Name)
		if value != nil {
			order = cmp.Or(cmp.Compare(value(&a), value(&b)), order)
		}
		if s.down {
			return -order
		}
		return order
	})
	return list
}

func optional[T int | int64](v *T) cell {
	if v == nil {
		return cell{"-", dim}
	}
	return number(int64(*v))
}

func (m *model) nodeRows(s *screen) (rows []row) {
	if m.overview == nil {
		return nil
	}
	for _, n := range sortedNodes(m.overview.Nodes, s) {
		state := cell{n.State, good}
		mark := cell{}
		switch {
		case n.State != "live":
			state.tone, mark = bad, cell{"✖", bad}
		case !n.Answered || n.Ready != nil && !*n.Ready:
			mark = cell{"▲", warn}
			if state.tone = warn; !n.Answered {
				state.text = "silent"
			} else {
				state.text = "unready"
			}
		case n.Self:
			mark = cell{"·", dim}
		}
		rows = append(rows, row{key: n.Name + "/" + n.RaftID, mark: mark, cells: []cell{
			{clean(n.Name), plain},
			state, perSecond(n.InRate), perSecond(n.DeliveredRate), optional(n.Consumers),
			number(int64(n.Leads)), milliseconds(n.SyncMs), bytesOf(n.DiskFree), bytesOf(n.Memory), optional(n.Connections),
			{clean(n.Version), dim},
		}})
	}
	return rows
}

func milliseconds(v *float64) cell {
	if v == nil {
		return cell{"-", dim}
	}
	return cell{strconv.FormatFloat(*v, 'f', 1, 64) + " ms", plain}
}

func bytesOf(n *int64) cell {
	if n == nil {
		return cell{"-", dim}
	}
	return cell{size(*n), plain}
}

// severity is the mark of a finding.
func severity(of string) cell {
	switch of {
	case "critical":
		return cell{"✖", bad}
	case "warning":
		return cell{"▲", warn}
	}
	return cell{"·", dim}
}

func (m *model) findingRows() (rows []row) {
	if m.overview == nil {
		return nil
	}
	for i := range m.overview.Findings {
		f := &m.overview.Findings[i]
		mark := severity(f.Severity)
		rows = append(rows, row{key: f.ID, mark: mark, cells: []cell{{clean(f.Text), mark.grave()}}})
	}
	return rows
}

func (m *model) consumerRows() (rows []row) {
	if m.consumers == nil {
		return nil
	}
	for i := range m.consumers.Items {
		c := &m.consumers.Items[i]
		name := c.ClientID
		if c.Hostname != "" && c.Hostname != name {
			name += "@" + c.Hostname
		}
		var finished *float64
		if r, ok := m.finishing[c.ID]; ok {
			finished = &r
		}
		since := time.Duration(max(m.consumers.At-c.ConnectedAt, 0)) * time.Millisecond
		rows = append(rows, row{key: c.ID, cells: []cell{
			{clean(name), plain},
			number(c.InFlight), number(c.Ready), perSecond(finished), number(int64(c.Requeued)), number(int64(c.TimedOut)),
			{span(since), plain},
			number(int64(c.Finished)),
			{clean(c.Node), plain},
			{clean(c.RemoteAddress), plain},
			{clean(c.UserAgent), dim},
		}})
	}
	return rows
}
