package top

import (
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/tidings-io/tidings/internal/front/admin"
)

const (
	historyMax   = 240 // samples of the rates that are kept for the charts
	consumersAge = time.Second
	filterMax    = 64 // no name is longer
)

// watcher is the feed as the model sees it.
type watcher interface{ watch(watches []string) }

// model is all that is on the terminal. Only Update changes it.
type model struct {
	feed watcher
	// ask makes the question for a channel's consumers.
	ask func(topic, channel, sort, filter string) tea.Cmd

	theme         theme
	width, height int
	stack         []screen // the last is shown, those below are where one came from

	overview  *admin.Overview
	topics    *admin.TopicRows
	channels  *admin.ChannelRows
	detail    *admin.ChannelDetail
	consumers *admin.Page[admin.Consumer]
	finishing map[string]float64   // messages per second, by consumer
	in, out   []float64            // rates, the newest last
	graves    map[[2]string]string // severity, by topic and channel

	paused bool
	owed   bool   // paused, but what is shown now has not come yet
	lost   string // why there is no stream
	gone   string // why what is watched is not there
	help   bool
	typing bool // in the filter
	asking int  // number of the run of questions for consumers; answers of others are late
}

func newModel(o Options, f watcher, ask func(topic, channel, sort, filter string) tea.Cmd) *model {
	return &model{feed: f, ask: ask, theme: newTheme(o.Plain), stack: []screen{o.screen()}}
}

// now is the screen that is shown.
func (m *model) now() *screen { return &m.stack[len(m.stack)-1] }

// Init begins to watch.
func (m *model) Init() tea.Cmd {
	m.rewatch()
	return nil
}

// rewatch says what the stream is to show.
func (m *model) rewatch() {
	watches := []string{"overview"}
	if w := m.now().watch(); w != "" {
		watches = append(watches, w)
	}
	m.owed, m.gone = m.paused, ""
	m.feed.watch(watches)
}

// rest closes the stream of somebody who paused and has what he looks at.
func (m *model) rest() {
	if m.paused && m.owed {
		m.owed = false
		m.feed.watch(nil)
	}
}

// pollMsg says that it is time for a question of a run.
type pollMsg struct{ asking int }

// poll begins a new run of questions for consumers, where they are shown.
func (m *model) poll() tea.Cmd {
	m.asking++
	return m.question(m.asking)
}

// question asks for consumers, unless another run has begun or nobody looks.
func (m *model) question(asking int) tea.Cmd {
	s := m.now()
	if asking != m.asking || !m.looks() {
		return nil
	}
	ask := m.ask(s.topic, s.channel, s.order(), s.filter)
	return func() tea.Msg {
		msg := ask()
		if c, ok := msg.(consumersMsg); ok {
			c.asking = asking
			return c
		}
		return msg
	}
}

// looks says that consumers are shown, and their figures move.
func (m *model) looks() bool { return m.now().kind == consumersKind && (!m.paused || m.owed) }

// again has the next question asked in a second.
func (m *model) again(asking int) tea.Cmd {
	if !m.looks() {
		return nil
	}
	return tea.Tick(consumersAge, func(time.Time) tea.Msg { return pollMsg{asking} })
}

// Update takes in what happened.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		if msg.Width == 0 && msg.Height == 0 && m.width == 0 { // a terminal that does not know, such as a serial line
			return m, func() tea.Msg { return tea.WindowSizeMsg{Width: 80, Height: 24} }
		}
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case tea.PasteMsg:
		if m.typing {
			m.filter(m.now().filter + msg.Content)
		}
	case pollMsg:
		return m, m.question(msg.asking)
	case consumersMsg:
		if msg.asking != m.asking {
			return m, nil
		}
		m.tookConsumers(msg)
		return m, m.again(msg.asking)
	default:
		m.took(msg)
	}
	m.follow()
	return m, nil
}

// took takes in what the stream told.
func (m *model) took(msg tea.Msg) {
	s := m.now()
	switch msg := msg.(type) {
	case overviewMsg:
		m.lost = ""
		m.tookOverview(msg.overview)
		if s.watch() == "" {
			m.rest()
		}
	case topicsMsg:
		if msg.watch == s.watch() {
			m.topics, m.gone = msg.rows, ""
			m.rest()
		}
	case channelsMsg:
		if msg.watch == s.watch() {
			m.channels, m.gone = msg.rows, ""
			m.rest()
		}
	case channelMsg:
		if msg.watch == s.watch() {
			m.detail, m.gone = msg.detail, ""
			if m.consumers != nil {
				m.rest()
			}
		}
	case goneMsg:
		if msg.watch == s.watch() {
			m.gone, m.topics, m.channels, m.detail, m.consumers = clean(msg.text), nil, nil, nil, nil
			m.rest()
		}
	case lostMsg:
		m.lost = clean(msg.err.Error())
	}
}

func (m *model) tookOverview(o *admin.Overview) {
	if m.overview == nil || o.At != m.overview.At {
		m.in, m.out = history(m.in, o.Totals.InRate), history(m.out, o.Totals.OutRate)
	}
	m.overview = o
	m.graves = make(map[[2]string]string)
	for i := range o.Findings { // the gravest first
		f := &o.Findings[i]
		if f.Target.Topic == "" {
			continue
		}
		for _, key := range [][2]string{{f.Target.Topic, f.Target.Channel}, {f.Target.Topic, ""}} {
			if m.graves[key] == "" {
				m.graves[key] = f.Severity
			}
		}
	}
}

// history adds a rate; what is not measured is no rate.
func history(list []float64, r *float64) []float64 {
	if r == nil {
		return list
	}
	list = append(list, *r)
	return list[max(len(list)-historyMax, 0):]
}

// tookConsumers also measures how fast each finishes.
func (m *model) tookConsumers(msg consumersMsg) {
	s := m.now()
	if s.kind != consumersKind || s.topic != msg.topic || s.channel != msg.channel {
		return
	}
	if msg.err != nil {
		if m.gone == "" && m.lost == "" {
			m.lost = clean(msg.err.Error())
		}
		return
	}
	if was := m.consumers; was != nil && msg.page.At > was.At {
		before := make(map[string]uint64, len(was.Items))
		for i := range was.Items {
			before[was.Items[i].ID] = was.Items[i].Finished
		}
		m.finishing = make(map[string]float64, len(msg.page.Items))
		for i := range msg.page.Items {
			c := &msg.page.Items[i]
			if n, ok := before[c.ID]; ok && c.Finished >= n {
				m.finishing[c.ID] = float64(c.Finished-n) / (float64(msg.page.At-was.At) / 1000)
			}
		}
	}
	m.consumers = msg.page
	m.follow()
	if m.detail != nil {
		m.rest()
	}
}

// rows are those of the screen that is shown.
func (m *model) rows() []row {
	s := m.now()
	switch s.kind {
	case channelsKind:
		return m.channelRows(s.topic != "")
	case nodesKind:
		return m.nodeRows(s)
	case findingsKind:
		return m.findingRows()
	case consumersKind:
		return m.consumerRows()
	}
	return m.topicRows()
}

// follow keeps the selection on its row when the order changes, or at its place
// when the row is gone, and in sight.
func (m *model) follow() {
	s, rows := m.now(), m.rows()
	if len(rows) == 0 {
		s.at, s.first = 0, 0
		return
	}
	at := slices.IndexFunc(rows, func(r row) bool { return r.key == s.selected })
	if at < 0 {
		at = min(s.at, len(rows)-1)
	}
	m.choose(at, rows)
}

// choose selects a row and brings it into sight.
func (m *model) choose(at int, rows []row) {
	s := m.now()
	s.at = min(max(at, 0), len(rows)-1)
	s.selected = rows[s.at].key
	room := m.room()
	s.first = min(max(s.first, s.at-room+1), s.at)
	s.first = min(s.first, max(len(rows)-room, 0))
}

// move selects another row.
func (m *model) move(by int) {
	if rows := m.rows(); len(rows) > 0 {
		m.choose(m.now().at+by, rows)
	}
}

// forget drops what another screen showed.
func (m *model) forget() {
	m.topics, m.channels, m.detail, m.consumers, m.finishing = nil, nil, nil, nil, nil
}

// show goes to a screen; below are those to come back to.
func (m *model) show(stack ...screen) tea.Cmd {
	m.stack = stack
	m.forget()
	m.rewatch()
	m.follow()
	return m.poll()
}

// back goes to where one came from.
func (m *model) back() tea.Cmd {
	if len(m.stack) == 1 {
		return nil
	}
	return m.show(m.stack[:len(m.stack)-1]...)
}

// open looks into the selected row.
func (m *model) open() tea.Cmd {
	s := m.now()
	switch s.kind {
	case topicsKind:
		if m.topics != nil && s.selected != "" {
			return m.openTopic(s.selected)
		}
	case channelsKind:
		if topic, channel, ok := strings.Cut(s.selected, "/"); ok {
			return m.openChannel(topic, channel)
		}
	case findingsKind:
		f := m.finding()
		switch {
		case f == nil:
		case f.Target.Channel != "":
			return m.openChannel(f.Target.Topic, f.Target.Channel)
		case f.Target.Topic != "":
			return m.openTopic(f.Target.Topic)
		default:
			return m.tab(nodesKind)
		}
	}
	return nil
}

func (m *model) openTopic(topic string) tea.Cmd {
	next := newScreen(channelsKind)
	next.topic = topic
	return m.show(append(slices.Clone(m.stack), next)...)
}

func (m *model) openChannel(topic, channel string) tea.Cmd {
	next := newScreen(consumersKind)
	next.topic, next.channel = topic, channel
	return m.show(append(slices.Clone(m.stack), next)...)
}

// finding is the selected one.
func (m *model) finding() *admin.Finding {
	if m.overview == nil {
		return nil
	}
	for i := range m.overview.Findings {
		if m.overview.Findings[i].ID == m.now().selected {
			return &m.overview.Findings[i]
		}
	}
	return nil
}

// tab goes to a list of its own.
func (m *model) tab(k kind) tea.Cmd {
	if s := m.now(); len(m.stack) == 1 && s.kind == k {
		return nil
	}
	return m.show(newScreen(k))
}

// filter changes the filter of what is shown.
func (m *model) filter(text string) {
	text = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1 // names have none of these
		}
		return r
	}, text)
	s := m.now()
	if text = text[:min(len(text), filterMax)]; text == s.filter {
		return
	}
	s.filter, s.at, s.first, s.selected = text, 0, 0, ""
	m.rewatch()
}

// sortBy orders the rows by the next or the previous column.
func (m *model) sortBy(step int) tea.Cmd {
	s := m.now()
	keys := sortable(columnsOf(s.kind), m.width)
	if len(keys) == 0 {
		return nil
	}
	at := slices.Index(keys, s.sort)
	if at < 0 && step < 0 {
		at = 0
	}
	s.sort = keys[(at+step+len(keys))%len(keys)]
	s.down = !slices.Contains([]string{"name", "client", "node", "address", "connected"}, s.sort)
	return m.reordered()
}

func (m *model) reordered() tea.Cmd {
	s := m.now()
	s.at, s.first, s.selected = 0, 0, ""
	m.rewatch()
	return m.poll()
}

// pause stops the figures, and the stream with them, or lets them go on.
func (m *model) pause() tea.Cmd {
	m.paused = !m.paused
	if m.paused {
		m.owed = false
		m.feed.watch(nil)
		return nil
	}
	m.in, m.out = nil, nil // there is a gap
	m.rewatch()
	return m.poll()
}
