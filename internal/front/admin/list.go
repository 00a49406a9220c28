package admin

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/tidings-io/tidings/internal/fault"
)

// Bounds of a page.
const (
	pageDefault  = 50
	pageMax      = 1000
	patternBytes = 128
	cursorBytes  = 1024
)

// order is how a list is sorted: by value, if there is one, and name.
type order[T any] struct {
	name  func(*T) string
	value func(*T) float64 // nil: by name
	down  bool
}

// key is the place of an item in an order.
type key struct {
	Value float64 `json:"v,omitempty"`
	Name  string  `json:"n"`
}

func (o *order[T]) key(x *T) key {
	k := key{Name: o.name(x)}
	if o.value != nil {
		k.Value = o.value(x)
	}
	return k
}

func (o *order[T]) compare(a, b key) int {
	switch {
	case o.value == nil && o.down:
		return cmp.Compare(b.Name, a.Name)
	case o.value != nil && o.down && a.Value != b.Value:
		return cmp.Compare(b.Value, a.Value)
	}
	return cmp.Or(cmp.Compare(a.Value, b.Value), cmp.Compare(a.Name, b.Name))
}

// listing is what a request for a list says.
type listing struct {
	match   func(name string) bool
	states  []string
	sort    string
	down    bool
	limit   int
	after   *key
	limited int // largest limit
}

// listingOf reads the parameters of a list.
func listingOf(q url.Values, sorts, states []string, most int) (l listing, err error) {
	l.limited = most
	if l.limit, err = intParam(q, "limit", min(pageDefault, most), 1, most); err != nil {
		return l, err
	}
	l.sort, l.down = strings.CutPrefix(q.Get("sort"), "-")
	if l.sort == "" {
		l.sort = sorts[0]
	}
	if !slices.Contains(sorts, l.sort) {
		return l, fault.New(fault.InvalidRequest, "sort %q is not known: want one of %s, or one with - before it", q.Get("sort"), strings.Join(sorts, ", "))
	}
	for _, s := range q["state"] {
		if !slices.Contains(states, s) {
			return l, fault.New(fault.InvalidRequest, "state %q is not known: want %s", s, strings.Join(states, ", "))
		}
		l.states = append(l.states, s)
	}
	if l.match, err = pattern(q.Get("q")); err != nil {
		return l, err
	}
	if text := q.Get("cursor"); text != "" {
		l.after = new(key)
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if len(text) > cursorBytes || err != nil || json.Unmarshal(raw, l.after) != nil {
			return l, fault.New(fault.InvalidRequest, "cursor is not one that was given")
		}
	}
	return l, nil
}

// pattern is a filter by name: a part of it in any case, or with * and ? a
// pattern for all of it.
func pattern(text string) (func(string) bool, error) {
	if len(text) > patternBytes {
		return nil, fault.New(fault.InvalidRequest, "q is longer than %d bytes", patternBytes)
	}
	if text == "" {
		return nil, nil
	}
	text = strings.ToLower(text)
	if strings.ContainsAny(text, "*?") {
		quoted := strings.NewReplacer(`\`, `\\`, `[`, `\[`).Replace(text)
		return func(name string) bool {
			ok, _ := path.Match(quoted, strings.ToLower(name)) // names have no slash
			return ok
		}, nil
	}
	return func(name string) bool { return strings.Contains(strings.ToLower(name), text) }, nil
}

func intParam(q url.Values, name string, def, low, high int) (int, error) {
	text := q.Get(name)
	if text == "" {
		return def, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, fault.New(fault.InvalidRequest, "%s %q: want a number from %d to %d", name, text, low, high)
	}
	return n, nil
}

// page sorts what was selected and cuts a page out of it.
func page[T any](l *listing, o order[T], all []*T) (items []T, total int, next string) {
	o.down = l.down
	type keyed struct {
		key
		item *T
	}
	list := make([]keyed, 0, len(all))
	for _, x := range all {
		k := o.key(x)
		if l.after == nil || o.compare(k, *l.after) > 0 {
			list = append(list, keyed{k, x})
		}
	}
	slices.SortFunc(list, func(a, b keyed) int { return o.compare(a.key, b.key) })
	n := min(l.limit, len(list))
	items = make([]T, 0, n)
	for _, x := range list[:n] {
		items = append(items, *x.item)
	}
	if n < len(list) {
		raw, _ := json.Marshal(list[n-1].key) // numbers and text
		next = base64.RawURLEncoding.EncodeToString(raw)
	}
	return items, len(all), next
}

// rate is a rate for sorting.
func rate(r *float64) float64 {
	if r == nil {
		return -1
	}
	return *r
}

func ageOf(a *int64) float64 {
	if a == nil {
		return -1
	}
	return float64(*a)
}

var (
	topicSorts  = []string{"name", "backlog", "waiting", "oldest", "in_rate", "out_rate", "log", "channels", "consumers", "deferred", "in_flight"}
	topicStates = []string{"paused", "backlog", "no_channel", "no_consumer", "ephemeral"}

	topicValues = map[string]func(*TopicRow) float64{
		"backlog":   func(t *TopicRow) float64 { return float64(t.Backlog) },
		"waiting":   func(t *TopicRow) float64 { return float64(t.Waiting) },
		"oldest":    func(t *TopicRow) float64 { return ageOf(t.OldestAgeMs) },
		"in_rate":   func(t *TopicRow) float64 { return rate(t.InRate) },
		"out_rate":  func(t *TopicRow) float64 { return rate(t.OutRate) },
		"log":       func(t *TopicRow) float64 { return float64(t.LogBytes) },
		"channels":  func(t *TopicRow) float64 { return float64(t.Channels) },
		"consumers": func(t *TopicRow) float64 { return float64(t.Consumers) },
		"deferred":  func(t *TopicRow) float64 { return float64(t.Deferred) },
		"in_flight": func(t *TopicRow) float64 { return float64(t.InFlight) },
	}

	channelSorts  = []string{"name", "backlog", "oldest", "in_flight", "deferred", "consumers", "in_rate", "out_rate", "requeued", "timed_out"}
	channelStates = []string{"paused", "backlog", "stuck", "no_consumer", "ephemeral"}

	channelValues = map[string]func(*ChannelRow) float64{
		"backlog":   func(c *ChannelRow) float64 { return float64(c.Backlog) },
		"oldest":    func(c *ChannelRow) float64 { return ageOf(c.OldestAgeMs) },
		"in_flight": func(c *ChannelRow) float64 { return float64(c.InFlight) },
		"deferred":  func(c *ChannelRow) float64 { return float64(c.Deferred) },
		"consumers": func(c *ChannelRow) float64 { return float64(c.Consumers) },
		"in_rate":   func(c *ChannelRow) float64 { return rate(c.InRate) },
		"out_rate":  func(c *ChannelRow) float64 { return rate(c.OutRate) },
		"requeued":  func(c *ChannelRow) float64 { return float64(c.Requeued) },
		"timed_out": func(c *ChannelRow) float64 { return float64(c.TimedOut) },
	}
)

func (t *TopicRow) is(state string) bool {
	switch state {
	case "paused":
		return t.Paused
	case "backlog":
		return t.Backlog+t.Waiting > 0
	case "no_channel":
		return t.Channels == 0
	case "no_consumer":
		return t.Consumers == 0
	}
	return t.Ephemeral
}

func (c *ChannelRow) is(state string) bool {
	switch state {
	case "paused":
		return c.Paused
	case "backlog":
		return c.Backlog > 0
	case "stuck":
		return c.stuck()
	case "no_consumer":
		return c.Consumers == 0
	}
	return c.Ephemeral
}

// topicPage is a page of topics.
func (x *sample) topicPage(l *listing) Page[TopicRow] {
	selected := make([]*TopicRow, 0, len(x.topics))
	for i := range x.topics {
		t := &x.topics[i].TopicRow
		if (l.match == nil || l.match(t.Name)) && !slices.ContainsFunc(l.states, func(s string) bool { return !t.is(s) }) {
			selected = append(selected, t)
		}
	}
	o := order[TopicRow]{name: func(t *TopicRow) string { return t.Name }, value: topicValues[l.sort]}
	p := Page[TopicRow]{At: x.at.UnixMilli(), Missing: x.missing}
	p.Items, p.Total, p.Next = page(l, o, selected)
	return p
}

// channelPage is a page of channels.
func (x *sample) channelPage(l *listing, all []ChannelRow, ofAll bool) Page[ChannelRow] {
	selected := make([]*ChannelRow, 0, len(all))
	for i := range all {
		c := &all[i]
		if l.match != nil && !l.match(c.Name) && (!ofAll || !l.match(c.Topic)) {
			continue
		}
		if !slices.ContainsFunc(l.states, func(s string) bool { return !c.is(s) }) {
			selected = append(selected, c)
		}
	}
	o := order[ChannelRow]{name: func(c *ChannelRow) string { return c.Topic + "\x00" + c.Name }, value: channelValues[l.sort]}
	p := Page[ChannelRow]{At: x.at.UnixMilli(), Missing: x.missing}
	p.Items, p.Total, p.Next = page(l, o, selected)
	return p
}

var consumerSorts = []string{"connected", "client", "address", "node", "ready", "in_flight", "delivered", "finished", "requeued", "timed_out"}

// consumerPage is a page of consumers.
func consumerPage(l *listing, all []Consumer) ([]Consumer, int, string) {
	name := func(c *Consumer) string { return c.ID }
	o := order[Consumer]{name: name}
	switch l.sort {
	case "connected":
		o.value = func(c *Consumer) float64 { return float64(c.ConnectedAt) }
	case "client":
		o.name = func(c *Consumer) string { return c.ClientID + "\x00" + c.ID }
	case "address":
		o.name = func(c *Consumer) string { return c.RemoteAddress + "\x00" + c.ID }
	case "node":
		o.name = func(c *Consumer) string { return c.Node + "\x00" + c.ID }
	case "ready":
		o.value = func(c *Consumer) float64 { return float64(c.Ready) }
	case "in_flight":
		o.value = func(c *Consumer) float64 { return float64(c.InFlight) }
	case "delivered":
		o.value = func(c *Consumer) float64 { return float64(c.Delivered) }
	case "finished":
		o.value = func(c *Consumer) float64 { return float64(c.Finished) }
	case "requeued":
		o.value = func(c *Consumer) float64 { return float64(c.Requeued) }
	case "timed_out":
		o.value = func(c *Consumer) float64 { return float64(c.TimedOut) }
	}
	selected := make([]*Consumer, 0, len(all))
	for i := range all {
		c := &all[i]
		if l.match == nil || slices.ContainsFunc([]string{c.ClientID, c.Hostname, c.RemoteAddress, c.UserAgent}, l.match) {
			selected = append(selected, c)
		}
	}
	return page(l, o, selected)
}
