package top

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tidings-io/tidings/internal/front/admin"
)

// Between two tries to reach a node that went away.
const (
	retryFirst = 200 * time.Millisecond
	retryMost  = 2 * time.Second
)

// What the feed and the questions tell the model.
type (
	overviewMsg struct{ overview *admin.Overview }
	topicsMsg   struct {
		watch string
		rows  *admin.TopicRows
	}
	channelsMsg struct {
		watch string
		rows  *admin.ChannelRows
	}
	channelMsg struct {
		watch  string
		detail *admin.ChannelDetail
	}
	// goneMsg says that what is watched is not there.
	goneMsg struct{ watch, text string }
	// lostMsg says that the stream broke; it is tried again.
	lostMsg struct{ err error }

	consumersMsg struct {
		asking         int
		topic, channel string
		page           *admin.Page[admin.Consumer]
		err            error
	}
)

// feed keeps one stream open for what is to be watched, and tells what comes.
type feed struct {
	src  Source
	want chan []string // at most the last wish
}

func newFeed(src Source) *feed { return &feed{src: src, want: make(chan []string, 1)} }

// watch changes what is watched; nothing closes the stream. One goroutine calls
// it.
func (f *feed) watch(watches []string) {
	select {
	case <-f.want: // nobody has taken the last wish
	default:
	}
	f.want <- watches
}

// run lives until ctx ends.
func (f *feed) run(ctx context.Context, tell func(any)) {
	var watches []string
	wait := retryFirst
	for ctx.Err() == nil {
		if len(watches) == 0 {
			select {
			case watches = <-f.want:
			case <-ctx.Done():
			}
			continue
		}
		inner, cancel := context.WithCancel(ctx)
		var broke error // set when ended is closed
		ended := make(chan struct{})
		s := newStates(tell)
		go func(watches []string) {
			defer close(ended)
			broke = f.src.Watch(inner, watches, s.event)
		}(watches)
		select {
		case watches = <-f.want:
			cancel()
			<-ended
			wait = retryFirst
			continue
		case <-ctx.Done():
			cancel()
			<-ended
			return
		case <-ended:
			cancel()
			if s.told {
				wait = retryFirst
			}
			tell(lostMsg{cmp.Or(broke, io.ErrUnexpectedEOF)})
		}
		select {
		case watches = <-f.want:
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(2*wait, retryMost)
		}
	}
}

// states are the wholes that a stream's patches belong to.
type states struct {
	tell func(any)
	of   map[string]map[string]any
	told bool
}

func newStates(tell func(any)) *states {
	return &states{tell: tell, of: make(map[string]map[string]any)}
}

// event takes in an event of the stream. What can't be read is left out: a later
// version may know more.
func (s *states) event(kind string, data []byte) {
	var ev struct {
		Watch string
		Data  json.RawMessage
	}
	if json.Unmarshal(data, &ev) != nil {
		return
	}
	if kind == "gone" {
		var why struct{ Message string }
		_ = json.Unmarshal(ev.Data, &why) // without a text it is gone as well
		delete(s.of, ev.Watch)
		s.tell(goneMsg{ev.Watch, why.Message})
		return
	}
	var change map[string]any
	if json.Unmarshal(ev.Data, &change) != nil {
		return
	}
	switch whole := s.of[ev.Watch]; {
	case kind == "state":
		s.of[ev.Watch] = change
	case kind == "patch" && whole != nil:
		merge(whole, change)
	default:
		return
	}
	raw, err := json.Marshal(s.of[ev.Watch])
	if err != nil {
		return
	}
	if msg, err := decode(ev.Watch, raw); err == nil {
		s.told = true
		s.tell(msg)
	}
}

// merge applies a JSON merge patch (RFC 7396).
func merge(to, patch map[string]any) {
	for k, v := range patch {
		inner, isObject := v.(map[string]any)
		was, wasObject := to[k].(map[string]any)
		switch {
		case v == nil:
			delete(to, k)
		case isObject && wasObject:
			merge(was, inner)
		default:
			to[k] = v
		}
	}
}

var errUnknownWatch = errors.New("not something that is watched here")

// decode makes the message of what a watch shows.
func decode(watch string, raw []byte) (any, error) {
	name, _, _ := strings.Cut(watch, "?")
	name, _, _ = strings.Cut(name, ":")
	switch name {
	case "overview":
		o, err := as[admin.Overview](raw)
		return overviewMsg{o}, err
	case "topics":
		rows, err := as[admin.TopicRows](raw)
		return topicsMsg{watch, rows}, err
	case "channels":
		rows, err := as[admin.ChannelRows](raw)
		return channelsMsg{watch, rows}, err
	case "channel":
		d, err := as[admin.ChannelDetail](raw)
		return channelMsg{watch, d}, err
	}
	return nil, fmt.Errorf("%s: %w", watch, errUnknownWatch)
}

func as[T any](raw []byte) (*T, error) {
	v := new(T)
	return v, json.Unmarshal(raw, v)
}
