package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

const (
	watchMax     = 16  // things that one viewer watches
	watchBytes   = 512 // of a watch
	viewersMax   = 256 // viewers of this node
	viewersQueue = 64  // events that wait for one viewer
	streamPulse  = 10 * time.Second
	streamWrite  = 10 * time.Second // a viewer who takes longer is let go
	rowsMax      = 200              // of topics or channels in a watch
	showsMax     = 8                // watches that are looked at at once
	// roundShare is how many times as long as a round the time between two is: a
	// node with very many topics spends a twentieth of a core, and is seen less
	// often than once a second, but once in samplePeriodMax.
	roundShare      = 20
	samplePeriodMax = 3 * time.Second
)

// watch computes what a viewer sees of a sample.
type watch func(ctx context.Context, e *Engine, x *sample) (any, error)

// parseWatch reads what is to be watched.
func parseWatch(text string) (watch, error) {
	kind, rest, named := strings.Cut(text, ":")
	switch {
	case len(text) > watchBytes:
		return nil, fault.New(fault.InvalidRequest, "watch is longer than %d bytes", watchBytes)
	case text == "overview":
		return func(_ context.Context, _ *Engine, x *sample) (any, error) { return x.overview(), nil }, nil
	case text == "nodes":
		return func(_ context.Context, e *Engine, x *sample) (any, error) { return x.nodeState(e), nil }, nil
	case text == "topics" || strings.HasPrefix(text, "topics?"):
		return watchTopics(strings.TrimPrefix(strings.TrimPrefix(text, "topics"), "?"))
	case text == "channels" || strings.HasPrefix(text, "channels?"):
		return watchChannels(strings.TrimPrefix(strings.TrimPrefix(text, "channels"), "?"))
	case kind == "topic" && named:
		topic, err := url.PathUnescape(rest)
		return watchTopic(topic), err
	case kind == "channel" && named:
		topic, channel, ok := strings.Cut(rest, "/")
		t, err1 := url.PathUnescape(topic)
		c, err2 := url.PathUnescape(channel)
		if ok && err1 == nil && err2 == nil {
			return watchChannel(t, c), nil
		}
	}
	return nil, fault.New(fault.InvalidRequest, "watch %q: want overview, nodes, topics, topics?QUERY, channels, channels?QUERY, topic:TOPIC or channel:TOPIC/CHANNEL", text)
}

func watchTopics(query string) (watch, error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err)
	}
	l, err := listingOf(q, topicSorts, topicStates, rowsMax)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, _ *Engine, x *sample) (any, error) {
		p := x.topicPage(&l)
		rows := TopicRows{At: p.At, Order: make([]string, 0, len(p.Items)), Rows: make(map[string]TopicRow), Total: p.Total, Missing: p.Missing}
		for _, t := range p.Items {
			rows.Order = append(rows.Order, t.Name)
			rows.Rows[t.Name] = t
		}
		return rows, nil
	}, nil
}

// watchChannels watches a page of the channels of all topics, or of those of the
// topic that the query names.
func watchChannels(query string) (watch, error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err)
	}
	l, err := listingOf(q, channelSorts, channelStates, rowsMax)
	if err != nil {
		return nil, err
	}
	topic := q.Get("topic")
	return func(_ context.Context, _ *Engine, x *sample) (any, error) {
		var p Page[ChannelRow]
		if topic == "" {
			p = x.channelPage(&l, x.all(), true)
		} else {
			t := x.byName[topic]
			if t == nil {
				return nil, topicNotFound(topic)
			}
			p = x.channelPage(&l, t.channels, false)
		}
		rows := ChannelRows{At: p.At, Order: make([]string, 0, len(p.Items)), Rows: make(map[string]ChannelRow), Total: p.Total, Missing: p.Missing}
		for i := range p.Items {
			name := p.Items[i].Topic + "/" + p.Items[i].Name
			rows.Order = append(rows.Order, name)
			rows.Rows[name] = p.Items[i]
		}
		return rows, nil
	}, nil
}

func watchTopic(topic string) watch {
	return func(ctx context.Context, e *Engine, x *sample) (any, error) {
		t := x.byName[topic]
		if t == nil {
			return nil, topicNotFound(topic)
		}
		parts, missing, err := e.parts(ctx, topic)
		if err != nil {
			return nil, err
		}
		s := TopicState{TopicBase: x.topicBase(t, parts, missing), ChannelRows: make(map[string]ChannelRow)}
		for _, c := range t.channels[:min(len(t.channels), channelsOfTopic)] {
			s.ChannelRows[c.Name] = c
		}
		return s, nil
	}
}

func watchChannel(topic, channel string) watch {
	return func(ctx context.Context, e *Engine, x *sample) (any, error) {
		t := x.byName[topic]
		if t == nil {
			return nil, topicNotFound(topic)
		}
		for i := range t.channels {
			if t.channels[i].Name == channel {
				parts, missing, err := e.parts(ctx, topic)
				if err != nil {
					return nil, err
				}
				return x.channelDetail(t, &t.channels[i], parts, missing), nil
			}
		}
		return nil, fault.New(fault.ChannelNotFound, "channel %s of topic %s not found", channel, topic)
	}
}

// event is one event of a stream, written out.
type event []byte

func newEvent(kind, watch string, at int64, data any) (event, error) {
	raw, err := json.Marshal(struct {
		Watch string `json:"watch"`
		At    int64  `json:"at"`
		Data  any    `json:"data"`
	}{watch, at, data})
	if err != nil {
		return nil, err
	}
	return event("event: " + kind + "\ndata: " + string(raw) + "\n\n"), nil
}

// hub samples for all viewers, once a second, while there is one.
type hub struct {
	f    *Front
	runs sync.WaitGroup

	mu      sync.Mutex // guards the following
	viewers map[*viewer]struct{}
	watched map[string]*watched
	running bool
	ended   bool          // the front has ended: nothing begins any more
	bell    chan struct{} // a viewer has come, or something was changed
}

// watched is one thing that somebody watches, and how it was last.
type watched struct {
	name  string
	watch watch
	last  map[string]any // nil: nothing was shown yet, or it is gone
	gone  string         // why, as it was told
}

// viewer is one connection.
type viewer struct {
	watches []string
	fresh   map[string]bool // needs the whole
	out     chan event
	cancel  context.CancelFunc
}

// join adds a viewer; false: there are too many.
func (h *hub) join(v *viewer, watches map[string]watch) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.viewers) >= viewersMax {
		return false
	}
	if h.viewers == nil {
		h.viewers, h.watched, h.bell = make(map[*viewer]struct{}), make(map[string]*watched), make(chan struct{}, 1)
	}
	h.viewers[v] = struct{}{}
	for name, w := range watches {
		if h.watched[name] == nil {
			h.watched[name] = &watched{name: name, watch: w}
		}
	}
	if !h.running && !h.ended {
		h.running = true
		h.runs.Go(h.run)
	} else if h.running {
		select {
		case h.bell <- struct{}{}:
		default:
		}
	}
	return true
}

// ring asks for a round at once, if anybody watches.
func (h *hub) ring() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running {
		select {
		case h.bell <- struct{}{}:
		default:
		}
	}
}

// leave takes a viewer out.
func (h *hub) leave(v *viewer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.viewers, v)
	used := make(map[string]bool)
	for other := range h.viewers {
		for _, name := range other.watches {
			used[name] = true
		}
	}
	for name := range h.watched {
		if !used[name] {
			delete(h.watched, name)
		}
	}
}

// spawn runs f beside the rest, unless the front has ended.
func (h *hub) spawn(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.runs.Go(f)
	}
}

// end returns when nothing runs any more, and nothing will.
func (h *hub) end() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	h.runs.Wait()
}

// run samples until nobody watches.
func (h *hub) run() {
	tick := time.NewTimer(samplePeriod)
	defer tick.Stop()
	for {
		h.mu.Lock()
		if len(h.viewers) == 0 || h.f.ctx.Err() != nil {
			h.running = false
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
		began := time.Now()
		h.round()
		took := time.Since(began)
		tick.Reset(min(max(samplePeriod, roundShare*took), samplePeriodMax) - took)
		select {
		case <-tick.C:
		case <-h.bell: // at once: somebody has come, or changed something
		case <-h.f.ctx.Done():
		}
	}
}

// round takes a sample and tells the viewers what is new.
func (h *hub) round() {
	e := h.f.engine.Load()
	if e == nil {
		return
	}
	x, err := h.f.sampler.get(h.f.ctx, e, samplePeriod*9/10)
	if err != nil {
		return
	}
	h.mu.Lock()
	list := make([]*watched, 0, len(h.watched))
	for _, w := range h.watched {
		list = append(list, w)
	}
	h.mu.Unlock()
	var all sync.WaitGroup
	room := make(chan struct{}, showsMax)
	for _, w := range list {
		room <- struct{}{}
		all.Go(func() {
			h.show(e, x, w)
			<-room
		})
	}
	all.Wait()
}

// show computes one watch and sends it to who watches it. Only a round calls it,
// once for each, and so owns the watched.
func (h *hub) show(e *Engine, x *sample, w *watched) {
	at := x.at.UnixMilli()
	v, err := w.watch(h.f.ctx, e, x)
	var now map[string]any
	if err == nil {
		var g any
		if g, err = generic(v); err == nil {
			now, _ = g.(map[string]any)
		}
	}
	if err != nil {
		_, body := bodyOf(e.missing(err))
		told := w.gone == body.Code
		w.last, w.gone = nil, body.Code
		gone, _ := newEvent("gone", w.name, at, body) // texts
		h.send(w.name, gone, nil, told)
		return
	}
	var delta event
	if w.last != nil {
		was := w.last["at"]
		w.last["at"] = now["at"] // of itself no reason to send something
		patch, some := mergePatch(w.last, now)
		w.last["at"] = was
		if some {
			patch["at"] = now["at"]
			delta, _ = newEvent("patch", w.name, at, patch) // it came from JSON
		}
	}
	first := w.last == nil
	w.last, w.gone = now, ""
	state, _ := newEvent("state", w.name, at, now) // it came from JSON
	if first {
		delta = state
	}
	h.send(w.name, state, delta, false)
}

// send gives viewers of a watch the whole if they have nothing, else the delta.
// told: who has something has been told already.
func (h *hub) send(name string, whole, delta event, told bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for v := range h.viewers {
		fresh, watches := v.fresh[name]
		if !watches {
			continue
		}
		ev := delta
		if fresh || delta == nil && !told && strings.HasPrefix(string(whole), "event: gone") {
			ev = whole
		}
		if ev == nil {
			continue
		}
		select {
		case v.out <- ev:
			v.fresh[name] = false
		default: // it does not keep up: it may come again
			v.cancel()
		}
	}
}

// StreamsRefused is how many streams were refused because too many were open.
func (f *Front) StreamsRefused() uint64 { return f.refused.Load() }

// stream begins a stream of events.
func stream(w http.ResponseWriter) *http.ResponseController {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	return http.NewResponseController(w)
}

// push writes to a stream; false: the viewer is gone, or too slow.
func push(w http.ResponseWriter, rc *http.ResponseController, b []byte) bool {
	_ = rc.SetWriteDeadline(time.Now().Add(streamWrite)) // without one it is as slow as it is
	if _, err := w.Write(b); err != nil {
		return false
	}
	return rc.Flush() == nil
}

var errTooMany = &apiError{http.StatusServiceUnavailable, "TOO_MANY_VIEWERS", "too many streams are open on this node", "close some, or ask another node"}

func (f *Front) events(w http.ResponseWriter, r *http.Request) {
	if f.engine.Load() == nil {
		refuse(w, errStarting)
		return
	}
	names := r.URL.Query()["watch"]
	if len(names) == 0 || len(names) > watchMax {
		refuse(w, fault.New(fault.InvalidRequest, "watch: want 1 to %d", watchMax))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	v := &viewer{watches: names, fresh: make(map[string]bool), out: make(chan event, viewersQueue), cancel: cancel}
	watches := make(map[string]watch)
	for _, name := range names {
		one, err := parseWatch(name)
		if err != nil {
			refuse(w, err)
			return
		}
		watches[name], v.fresh[name] = one, true
	}
	if !f.hub.join(v, watches) {
		f.refused.Add(1)
		refuse(w, errTooMany)
		return
	}
	defer f.hub.leave(v)
	rc := stream(w)
	pulse := time.NewTicker(streamPulse)
	defer pulse.Stop()
	for ok := push(w, rc, []byte("retry: 2000\n\n")); ok; {
		select {
		case ev := <-v.out:
			ok = push(w, rc, ev)
		case <-pulse.C:
			ok = push(w, rc, []byte(": still here\n\n"))
		case <-ctx.Done():
			return
		case <-f.ctx.Done():
			return
		}
	}
}
