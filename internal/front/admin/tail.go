package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/meta"
)

const (
	tailsMax      = 32 // viewers of this node
	tailPeriod    = 250 * time.Millisecond
	tailBatch     = 50        // messages of one period
	tailBytes     = 256 << 10 // bodies of one period
	tailScan      = 2000      // messages of one period that a search looks at
	tailLife      = time.Hour
	tailUnchanged = 10 * time.Second
)

// follower follows the partitions of a topic.
type follower struct {
	e    *Engine
	m    *meta.Topic
	ask  readAsk
	next map[int32]int64
}

// begin notes where the partitions end.
func (t *follower) begin(ctx context.Context) error {
	for i := range max(len(t.m.Partitions), 1) {
		s, err := t.e.read(ctx, t.m, &readAsk{Partition: int32(i), Last: 1, Limit: 1, MaxBody: 0})
		if err != nil {
			return err
		}
		t.next[int32(i)] = s.End
	}
	return nil
}

// batch reads what has come since; some says that it is anything.
func (t *follower) batch(ctx context.Context) (b TailBatch, some bool) {
	b = TailBatch{At: time.Now().UnixMilli(), Items: []Message{}}
	for part, next := range t.next {
		a := t.ask
		a.Partition, a.From = part, next
		a.Last = int64(max(a.Limit, a.Scan))
		s, err := t.e.read(ctx, t.m, &a)
		if err != nil {
			b.Missing = append(b.Missing, Missing{Node: "partition", Reason: err.Error()})
			continue
		}
		if s.End < next { // it was made anew
			next = s.End
		}
		b.LeftOut += max(s.End-a.Last-next, 0)
		for k := range s.Items {
			s.Items[k].ns = s.Times[k]
		}
		if len(a.Search) == 0 {
			b.LeftOut += max(min(s.End-next, a.Last)-int64(len(s.Items)), 0)
		}
		b.Items = append(b.Items, s.Items...)
		t.next[part] = max(s.Next, next)
	}
	slices.SortFunc(b.Items, func(x, y Message) int { return cmp.Compare(x.ns, y.ns) })
	size := 0
	for i, m := range slices.Backward(b.Items) {
		if size += len(m.Body); size > tailBytes || len(b.Items)-i > tailBatch {
			b.LeftOut += int64(i + 1)
			b.Items = b.Items[i+1:]
			break
		}
	}
	return b, len(b.Items) > 0 || b.LeftOut > 0 || len(b.Missing) > 0
}

func (f *Front) tail(w http.ResponseWriter, r *http.Request) {
	e := f.engine.Load()
	if e == nil {
		refuse(w, errStarting)
		return
	}
	if f.tails.Add(1) > tailsMax {
		f.tails.Add(-1)
		f.refused.Add(1)
		refuse(w, errTooMany)
		return
	}
	defer f.tails.Add(-1)
	t, err := e.follower(r)
	if err == nil {
		err = t.begin(r.Context())
	}
	if err != nil {
		refuse(w, e.missing(err))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), tailLife)
	defer cancel()
	rc := stream(w)
	tick := time.NewTicker(tailPeriod)
	defer tick.Stop()
	last := time.Now()
	for ok := push(w, rc, []byte("retry: 2000\n\n")); ok; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-f.ctx.Done():
			return
		}
		if m, there := e.Meta.View().Topic(t.m.Name); !there || m.ID != t.m.ID {
			_, body := bodyOf(topicNotFound(t.m.Name))
			raw, _ := json.Marshal(body) // texts
			push(w, rc, append(append([]byte("event: gone\ndata: "), raw...), "\n\n"...))
			return
		}
		b, some := t.batch(ctx)
		switch {
		case some:
			raw, err := json.Marshal(b)
			if err != nil {
				return
			}
			ok = push(w, rc, append(append([]byte("event: messages\ndata: "), raw...), "\n\n"...))
			last = time.Now()
		case time.Since(last) > tailUnchanged:
			ok = push(w, rc, []byte(": still here\n\n"))
			last = time.Now()
		}
	}
}

func (e *Engine) follower(r *http.Request) (*follower, error) {
	m, err := e.knownTopic(r.PathValue("topic"))
	if err != nil {
		return nil, err
	}
	t := &follower{e: e, m: m, ask: readAsk{Limit: tailBatch}, next: make(map[int32]int64)}
	q := r.URL.Query()
	if t.ask.MaxBody, err = intParam(q, "max_body", bodyDefault, 0, bodyMax); err != nil {
		return nil, err
	}
	if t.ask.Search, err = searchParam(q); err != nil {
		return nil, err
	}
	if len(t.ask.Search) > 0 {
		t.ask.Scan = tailScan
	}
	return t, nil
}
