package admin

import (
	"context"
	"encoding/base64"
	"encoding/json"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
)

// browseCursor is where a page ended or began: an offset by partition.
type browseCursor map[int32]int64

func (c browseCursor) text() string {
	raw, err := json.Marshal(c)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// parseCursor reads what text has written, from the parameter of a name.
func parseCursor(name, text string) (browseCursor, error) {
	var c browseCursor
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(text) > 64<<10 || json.Unmarshal(raw, &c) != nil || c == nil {
		return nil, fault.New(fault.InvalidRequest, "%s is not one that was given", name)
	}
	return c, nil
}

// localReadBefore reads the last messages below an offset, of a partition that
// this node leads. It goes back in steps: as wide as the page or the scan at first,
// then wider, for what was deleted leaves no messages.
func (e *Engine) localReadBefore(ctx context.Context, topic string, a *readAsk) (*readSaid, error) {
	out := &readSaid{Items: []Message{}, First: a.Before, Next: a.Before}
	most := a.Limit
	if a.Scan > 0 {
		most = a.Scan
	}
	width := int64(most)
	for size := 0; out.First > 0 && len(out.Items) < a.Limit && size < answerBytes && out.Records < most; {
		part, whole, err := e.readBetween(ctx, topic, a, max(out.First-width, 0), out.First, a.Limit-len(out.Items))
		if err != nil {
			return nil, err
		}
		out.Records, out.Bytes = out.Records+part.Records, out.Bytes+part.Bytes
		if !whole { // from closer by
			width = max(width/4, 1)
			continue
		}
		for i := range part.Items {
			size += len(part.Items[i].Body)
		}
		out.Items, out.Times = append(part.Items, out.Items...), append(part.Times, out.Times...)
		out.Gaps = append(part.Gaps, out.Gaps...)
		out.First, out.End = part.First, part.End
		width *= 2
	}
	return out, nil
}

// readBetween reads the last messages that are wanted of a range of offsets, at
// most so many. First says how far down they reach: what lies below was not read.
// It is not whole where one read must not have so many bytes.
func (e *Engine) readBetween(ctx context.Context, topic string, a *readAsk, from, until int64, most int) (out *readSaid, whole bool, err error) {
	out = &readSaid{First: from, Next: until}
	r := broker.Range{Partition: a.Partition, From: from, MaxRecords: int(min(until-from, scanMax))}
	beyond := 0
	end, err := e.Broker.Read(ctx, topic, r, func(s *broker.Stored) bool {
		if s.Offset >= until {
			beyond++
			return false
		}
		if a.wants(&s.Record) {
			out.Items, out.Times = append(out.Items, messageOf(s, a.MaxBody)), append(out.Times, s.TimeNs)
			if over := len(out.Items) - most; over > 0 {
				out.First = out.Items[over-1].Offset + 1
				out.Items, out.Times = out.Items[over:], out.Times[over:]
			}
		}
		return true
	})
	if err != nil {
		return nil, false, err
	}
	out.End, out.Records, out.Bytes = end.End, end.Records-beyond, end.Bytes
	for _, g := range end.Gaps {
		if g.Last = min(g.Last, until-1); g.First < until && g.Last >= out.First {
			out.Gaps = append(out.Gaps, gapOf(a.Partition, g))
		}
	}
	return out, end.Next >= min(until, end.End) || until-from <= 1, nil
}

func gapOf(part int32, g broker.Gap) Gap {
	reason := "deleted"
	if g.Damaged {
		reason = "damaged"
	}
	return Gap{Partition: part, First: g.First, Last: g.Last, Reason: reason}
}
