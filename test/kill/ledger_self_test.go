//go:build linux

package kill

import (
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// script drives a ledger by hand: one publisher, a channel with one consumer and
// one with several.
type script struct {
	*ledger
	t          *testing.T
	solo, team *channelLog
}

func newScript(t *testing.T) *script {
	l := newLedger(1, 1, "orders")
	s := &script{ledger: l, t: t, solo: l.addChannel(0, "solo", true), team: l.addChannel(0, "team", false)}
	s.life()
	return s
}

func (s *script) life() {
	s.begin()
	s.serves()
}

// sends writes down one publish.
func (s *script) sends(count int, delay time.Duration, acked bool) rig.Number {
	p := plan{delay: delay}
	for range count {
		p.sizes = append(p.sizes, 20)
	}
	first, ok := s.send(0, p)
	if !ok {
		s.t.Fatal("the load has ended")
	}
	if acked {
		s.acknowledge(first, count, "")
	}
	return first
}

// comes writes down a delivery with the timestamp as the message's identity.
func (s *script) comes(c *channelLog, m rig.Number, timestamp int64, attempts uint16) {
	s.deliver(c, nil, rig.Delivered{Timestamp: timestamp, Attempts: attempts, ID: [16]byte{byte(timestamp)}, Body: rig.Body(m, 20)})
}

// dies ends the life; what was answered before is certain when sure.
func (s *script) dies(sure bool) {
	window := time.Hour
	if sure {
		window = 0
	}
	s.endLife(func(instant) time.Duration { return window })
	if sure {
		for _, c := range s.channels {
			for seq, tr := range c.tracks[0] {
				if tr.answer != held {
					s.certain(c, sentAnswer{m: rig.NumberOf(0, seq), kind: tr.answer, at: tr.answered})
				}
			}
		}
	}
}

// The ledger must see each kind of broken promise, and none where there is none.
func TestLedger(t *testing.T) {
	for name, c := range map[string]struct {
		play func(*script)
		want string // the only kind of violation; empty: none
	}{
		"all comes": {func(s *script) {
			m := s.sends(2, 0, true)
			for i := range rig.Number(2) {
				s.comes(s.solo, m+i, int64(i)+1, 1)
				s.comes(s.team, m+i, int64(i)+1, 1)
			}
			s.drained()
		}, ""},
		"lost on one channel": {func(s *script) {
			m := s.sends(1, 0, true)
			s.comes(s.solo, m, 1, 1)
			s.drained()
		}, "lost"},
		"without an answer and gone": {func(s *script) {
			s.sends(3, 0, false)
			s.drained()
		}, ""},
		"torn publish": {func(s *script) {
			m := s.sends(2, 0, false)
			s.comes(s.solo, m, 1, 1)
			s.comes(s.team, m, 1, 1)
			s.drained()
		}, "torn"},
		"one channel has it, the other not": {func(s *script) {
			m := s.sends(1, 0, false)
			s.comes(s.solo, m, 1, 1)
			s.drained()
		}, "torn"},
		"in the log twice": {func(s *script) {
			m := s.sends(1, 0, true)
			s.comes(s.solo, m, 1, 1)
			s.comes(s.team, m, 2, 1)
		}, "doubled"},
		"a body that was never sent": {func(s *script) {
			s.sends(1, 0, true)
			s.comes(s.solo, 7, 1, 1)
		}, "alien"},
		"first deliveries out of order": {func(s *script) {
			m := s.sends(2, 0, true)
			s.comes(s.solo, m+1, 2, 1)
			s.comes(s.solo, m, 1, 1)
		}, "disorder"},
		"the publisher's order is not the log's": {func(s *script) {
			a, b := s.sends(1, 0, true), s.sends(1, 0, true)
			s.comes(s.solo, b, 1, 1)
			s.comes(s.solo, a, 2, 1)
			s.comes(s.team, b, 1, 1)
			s.comes(s.team, a, 2, 1)
			s.drained()
		}, "disorder"},
		"deferred and early": {func(s *script) {
			m := s.sends(1, time.Hour, true)
			s.comes(s.solo, m, 1, 1)
		}, "early"},
		"requeued and early": {func(s *script) {
			m := s.sends(1, 0, true)
			s.comes(s.solo, m, 1, 1)
			s.answer(s.solo, m, requeued, time.Hour)
			s.comes(s.solo, m, 1, 2)
			s.settle()
		}, "early"},
		"requeued for certain and early after a kill": {func(s *script) {
			m := s.sends(1, 0, true)
			s.comes(s.solo, m, 1, 1)
			s.answer(s.solo, m, requeued, time.Hour)
			s.dies(true)
			s.life()
			s.comes(s.solo, m, 1, 2)
		}, "early"},
		"requeued right before a kill": {func(s *script) {
			m := s.sends(1, 0, true)
			s.comes(s.solo, m, 1, 1)
			s.answer(s.solo, m, requeued, time.Hour)
			s.dies(false)
			s.life()
			s.comes(s.solo, m, 1, 1)
		}, ""},
		"finished for certain, and again": {func(s *script) {
			m := s.sends(1, 0, true)
			s.comes(s.solo, m, 1, 1)
			s.answer(s.solo, m, finished, 0)
			s.dies(true)
			s.life()
			s.comes(s.solo, m, 1, 1)
		}, "undead"},
		"finished right before a kill, and again": {func(s *script) {
			m := s.sends(1, 0, true)
			s.comes(s.solo, m, 1, 1)
			s.answer(s.solo, m, finished, 0)
			s.dies(false)
			s.life()
			s.comes(s.solo, m, 1, 1)
		}, ""},
		"attempts rise with a kill": {func(s *script) {
			m := s.sends(1, 0, true)
			s.comes(s.solo, m, 1, 1)
			s.dies(true)
			s.life()
			s.comes(s.solo, m, 1, 2)
		}, "attempts"},
		"attempts stay with a requeue": {func(s *script) {
			m := s.sends(1, 0, true)
			s.comes(s.solo, m, 1, 1)
			s.answer(s.solo, m, requeued, 0)
			s.comes(s.solo, m, 1, 1)
		}, "attempts"},
		"refused": {func(s *script) {
			s.acknowledge(s.sends(1, 0, false), 1, "E_PUB_FAILED")
		}, "refused"},
		"refused by a node that stops": {func(s *script) {
			m := s.sends(1, 0, false)
			s.dies(true)
			s.acknowledge(m, 1, "E_PUB_FAILED")
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			c.play(s)
			kinds := s.kinds()
			if want := c.want; len(kinds) > 1 || (want == "") != (len(kinds) == 0) || want != "" && kinds[want] == 0 {
				t.Errorf("want %q, got %v\n%s", want, kinds, s.report())
			}
		})
	}
}

// What /stats has counted says which answers were dealt with.
func TestCounted(t *testing.T) {
	id := func(b byte) [16]byte { return [16]byte{b} }
	c := &consumer{failed: map[[16]byte]bool{id(2): true}}
	c.answers = []sentAnswer{{1, id(1), finished, 1}, {2, id(2), finished, 2}, {3, id(3), requeued, 3}, {4, id(4), finished, 4}, {5, id(5), finished, 5}}
	c.sampled(10, rig.ClientStats{Finished: 2, Requeued: 0})
	c.sampled(20, rig.ClientStats{Finished: 3, Requeued: 1})
	for by, want := range map[instant][]rig.Number{5: nil, 10: {1}, 20: {1, 3, 4}} {
		var got []rig.Number
		for _, a := range c.counted(by) {
			got = append(got, a.m)
		}
		if len(got) != len(want) {
			t.Errorf("by %d: %v, want %v", by, got, want)
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("by %d: %v, want %v", by, got, want)
			}
		}
	}
}
