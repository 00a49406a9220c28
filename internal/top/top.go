// Package top is `tidings top`: the cluster live on a terminal, and one
// snapshot of it as text. It knows the admin API's answers and nothing of how
// they are asked for: a Source does that.
package top

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	tea "charm.land/bubbletea/v2"

	"github.com/tidings-io/tidings/internal/front/admin"
)

// Source is how the admin API of a node is asked. Both may be called at once.
type Source interface {
	// Watch opens a stream of what is watched, and hands each event to on until
	// ctx ends or the stream breaks. Nothing keeps data.
	Watch(ctx context.Context, watches []string, on func(kind string, data []byte)) error
	// Get reads the answer for a path below /api/v1 into v.
	Get(ctx context.Context, path string, query url.Values, v any) error
}

// Options say what is shown first.
type Options struct {
	Source Source
	View   string // topics, channels or nodes; empty: topics
	Sort   string // a key of the view, - before it for the largest first; empty: the view's own
	Filter string // part of a name, or a pattern with * and ?
	Limit  int    // rows of a snapshot, at most 1000
	Plain  bool   // without colours
}

// Views are the values of Options.View.
func Views() []string { return []string{"topics", "channels", "nodes"} }

// Sorts are the keys that a view's rows can be sorted by.
func Sorts(view string) (keys []string) {
	for _, c := range columnsOf(kindOf(view)) {
		if c.sort != "" {
			keys = append(keys, c.sort)
		}
	}
	return keys
}

func kindOf(view string) kind {
	switch view {
	case "channels":
		return channelsKind
	case "nodes":
		return nodesKind
	}
	return topicsKind
}

// Check is an error if there is no such view, or it cannot be sorted so.
func (o *Options) Check() error {
	if o.View != "" && !slices.Contains(Views(), o.View) {
		return fmt.Errorf("view %q is not known: want %s", o.View, strings.Join(Views(), ", "))
	}
	if sorts := Sorts(o.View); o.Sort != "" && !slices.Contains(sorts, strings.TrimPrefix(o.Sort, "-")) {
		return fmt.Errorf("sort %q is not known: want one of %s, or one with - before it", o.Sort, strings.Join(sorts, ", "))
	}
	return nil
}

// Run shows the cluster on the terminal that in and out are, until the user
// quits or ctx ends.
func Run(ctx context.Context, o Options, in io.Reader, out io.Writer) error {
	if err := o.Check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := newFeed(o.Source)
	m := newModel(o, f, func(topic, channel, sort, filter string) tea.Cmd {
		return askConsumers(ctx, o.Source, topic, channel, sort, filter)
	})
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithoutSignalHandler(), tea.WithEnvironment(os.Environ()))
	var feeding sync.WaitGroup
	feeding.Go(func() { f.run(ctx, func(m any) { p.Send(m) }) })
	_, err := p.Run()
	quit := ctx.Err() != nil // somebody ended the process, which is no failure
	cancel()
	feeding.Wait()
	if quit && errors.Is(err, tea.ErrProgramKilled) {
		return nil
	}
	return err
}

// askConsumers asks for the consumers of a channel, which no sample has.
func askConsumers(ctx context.Context, src Source, topic, channel, sort, filter string) tea.Cmd {
	return func() tea.Msg {
		msg := consumersMsg{topic: topic, channel: channel}
		q := url.Values{"limit": {listMax}, "sort": {sort}}
		if filter != "" {
			q.Set("q", filter)
		}
		var page admin.Page[admin.Consumer]
		path := "topics/" + topic + "/channels/" + channel + "/consumers"
		if msg.err = src.Get(ctx, path, q, &page); msg.err == nil {
			msg.page = &page
		}
		return msg
	}
}
