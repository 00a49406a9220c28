//go:build linux

package chaos

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/test/rig"
)

// script drives a history by hand: two publishers, one topic, two channels.
type script struct {
	*history
	work, copy *channelLog
	message    int32
}

func newScript() *script {
	s := &script{history: newHistory(2, "orders")}
	s.work, s.copy = s.addChannel(0, "work"), s.addChannel(0, "copy")
	return s
}

// sends writes down one publish of count messages in a session.
func (s *script) sends(publisher int, session uint32, count int, acked bool) rig.Number {
	var messages, sizes []int32
	for range count {
		messages, sizes = append(messages, s.message), append(sizes, 20)
		s.message++
	}
	first := s.send(publisher, 0, session, messages, sizes)
	s.pause()
	if acked {
		s.acknowledge(first, count)
		s.pause()
	}
	return first
}

// resends writes down another attempt at a message.
func (s *script) resends(m rig.Number, session uint32) rig.Number {
	first := s.send(m.Publisher(), 0, session, []int32{s.attempt(m).message}, []int32{20})
	s.pause()
	s.acknowledge(first, 1)
	s.pause()
	return first
}

// pause keeps two events apart on the clock.
func (s *script) pause() { s.begun = s.begun.Add(-time.Millisecond) }

// comes writes down a delivery; the timestamp is the message's identity.
func (s *script) comes(c *channelLog, m rig.Number, timestamp int64) {
	s.deliver(c, rig.Delivered{Timestamp: timestamp, Attempts: 1, ID: [16]byte{byte(timestamp)}, Body: rig.Body(m, 20)})
	s.pause()
}

func (s *script) both(m rig.Number, timestamp int64) {
	s.comes(s.work, m, timestamp)
	s.comes(s.copy, m, timestamp)
}

// The history must see each kind of broken promise, and none where there is none.
func TestHistory(t *testing.T) {
	for name, c := range map[string]struct {
		play func(*script)
		want string // the only kind of violation; empty: none
	}{
		"all comes": {func(s *script) {
			m := s.sends(0, 1, 2, true)
			s.both(m, 1)
			s.both(m+1, 2)
		}, ""},
		"lost": {func(s *script) { s.sends(0, 1, 1, true) }, "lost"},
		"lost on one channel": {func(s *script) {
			s.comes(s.work, s.sends(0, 1, 1, true), 1)
		}, "lost"},
		"unknown and gone":  {func(s *script) { s.sends(0, 1, 3, false) }, ""},
		"unknown and there": {func(s *script) { s.both(s.sends(0, 1, 1, false), 1) }, ""},
		"torn":              {func(s *script) { s.both(s.sends(0, 1, 2, false), 1) }, "torn"},
		"one channel has it, the other not": {func(s *script) {
			s.comes(s.work, s.sends(0, 1, 1, false), 1)
		}, "torn"},
		"in the log twice": {func(s *script) {
			m := s.sends(0, 1, 1, true)
			s.both(m, 1)
			s.comes(s.work, m, 2)
		}, "doubled"},
		"sent again and in the log twice": {func(s *script) {
			m := s.sends(0, 1, 1, false)
			n := s.resends(m, 2)
			s.both(m, 1)
			s.both(n, 2)
		}, ""},
		"sent again, and the first comes later": {func(s *script) {
			m := s.sends(0, 1, 1, false)
			n := s.resends(m, 2)
			s.both(n, 1)
			s.both(m, 2)
		}, ""},
		"one connection out of order": {func(s *script) {
			m, n := s.sends(0, 1, 1, false), s.sends(0, 1, 1, false)
			s.both(n, 1)
			s.both(m, 2)
		}, "disorder"},
		"acknowledged, then overtaken through another connection": {func(s *script) {
			m := s.sends(0, 1, 1, true)
			n := s.sends(1, 1, 1, true)
			s.both(n, 1)
			s.both(m, 2)
		}, "disorder"},
		"at the same time, in any order": {func(s *script) {
			m := s.sends(0, 1, 1, false)
			n := s.sends(1, 1, 1, false)
			s.acknowledge(m, 1)
			s.pause()
			s.acknowledge(n, 1)
			s.both(n, 1)
			s.both(m, 2)
		}, ""},
		"first deliveries out of order": {func(s *script) {
			m, n := s.sends(0, 1, 1, true), s.sends(1, 1, 1, true)
			s.comes(s.work, n, 2)
			s.comes(s.work, m, 1)
			s.comes(s.copy, m, 1)
			s.comes(s.copy, n, 2)
		}, "disorder"},
		"a body that was never sent": {func(s *script) { s.comes(s.work, 7, 1) }, "alien"},
		"finished, and again": {func(s *script) {
			m := s.sends(0, 1, 1, true)
			s.both(m, 1)
			s.finish(s.work, m)
			s.comes(s.work, m, 1)
		}, "undead"},
		"finished while a leader changed, and again": {func(s *script) {
			m := s.sends(0, 1, 1, true)
			s.both(m, 1)
			from := s.now()
			s.pause()
			s.finish(s.work, m)
			s.pause()
			s.excuse(from, s.now(), "leader changed")
			s.pause()
			s.comes(s.work, m, 1)
		}, ""},
		"FIN refused, and again": {func(s *script) {
			m := s.sends(0, 1, 1, true)
			s.both(m, 1)
			s.finish(s.work, m)
			s.unfinish(s.work, m)
			s.comes(s.work, m, 1)
		}, ""},
		"refused": {func(s *script) { s.refused(0, "E_PUB_FAILED") }, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript()
			c.play(s)
			s.check()
			kinds := s.kinds()
			if want := c.want; len(kinds) > 1 || (want == "") != (len(kinds) == 0) || want != "" && kinds[want] == 0 {
				t.Errorf("want %q, got %v\n%s", want, kinds, s.report())
			}
		})
	}
}

// porcupine must see what the sweep sees.
func TestLinear(t *testing.T) {
	for name, c := range map[string]struct {
		play func(*script)
		want porcupine.CheckResult
	}{
		"one after the other": {func(s *script) {
			s.both(s.sends(0, 1, 1, true), 1)
			s.both(s.sends(1, 1, 1, true), 2)
		}, porcupine.Ok},
		"without an answer, later": {func(s *script) {
			m := s.sends(0, 1, 1, false)
			s.both(s.sends(1, 1, 1, true), 1)
			s.both(m, 2)
		}, porcupine.Ok},
		"overtaken": {func(s *script) {
			m, n := s.sends(0, 1, 1, true), s.sends(1, 1, 1, true)
			s.both(n, 1)
			s.both(m, 2)
		}, porcupine.Illegal},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript()
			c.play(s)
			if got := linear(s.operations(0)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	read := []porcupine.Operation{
		{Input: place{0, true}, Call: 10, Return: 20},
		{Input: place{0, false}, Call: 5, Return: 5},
	}
	if got := linear(read); got != porcupine.Illegal {
		t.Errorf("read before it was sent: %s", got)
	}
}

// The gap is the longest time without an acknowledgement, the ends included.
func TestGap(t *testing.T) {
	h := newHistory(1, "orders")
	h.acks[0] = []instant{1, 10, 12, 40, 41, 70}
	for _, c := range []struct {
		from, to instant
		want     time.Duration
	}{{9, 42, 28}, {9, 60, 28}, {41, 69, 28}, {13, 20, 7}, {0, 100, 30}} {
		if got := h.gap(0, c.from, c.to); got != c.want {
			t.Errorf("from %d to %d: %d, want %d", c.from, c.to, got, c.want)
		}
	}
}

// Replicas that differ must be told apart.
func TestCompareReplicas(t *testing.T) {
	id := seglog.LogID{Topic: 5}
	same := func() replica {
		return replica{id: {{0, 4, 1, 10, 100, 9}, {5, 5, 2, 11, 200, 9}, {6, 9, 3, 12, 300, 9}}}
	}
	for name, c := range map[string]struct {
		change func(replica)
		fine   bool
	}{
		"same":              {func(replica) {}, true},
		"a hole":            {func(r replica) { r[id] = append(r[id][:1], r[id][2]) }, false},
		"the end missing":   {func(r replica) { r[id] = r[id][:2] }, false},
		"the begin missing": {func(r replica) { r[id] = r[id][1:] }, false},
		"another content":   {func(r replica) { r[id][1].crc++ }, false},
		"another offset":    {func(r replica) { r[id][1].last++ }, false},
		"another time":      {func(r replica) { r[id][2].time++ }, false},
		"no log":            {func(r replica) { delete(r, id) }, false},
		"one log more":      {func(r replica) { r[seglog.LogID{Topic: 6}] = r[id] }, false},
	} {
		t.Run(name, func(t *testing.T) {
			third := same()
			c.change(third)
			if err := compareReplicas([]string{"a", "b", "c"}, []replica{same(), same(), third}, 1); (err == nil) != c.fine {
				t.Errorf("got %v", err)
			}
		})
	}
}
