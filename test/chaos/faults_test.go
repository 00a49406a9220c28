//go:build linux

package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// fault is one kind of trouble on a cluster under load: begin it, hold it, end
// it; then the cluster must become healthy again.
type fault struct {
	name string
	do   func(s *scenario) error
}

// faults that leave a majority which sees each other. Where the trouble is, is
// drawn anew each time.
var faults = []fault{
	{"a leader stands still (SIGSTOP)", func(s *scenario) error {
		m := s.anyLeader()
		if err := m.freeze(); err != nil {
			return err
		}
		s.hold(scaled(8 * time.Second))
		if err := s.flowsAgain(); err != nil {
			return err
		}
		err := m.thaw()
		m.calmSoon()
		return err
	}},
	{"the link of a leader goes down", func(s *scenario) error {
		return s.cutOff(s.anyLeader(), s.net.unplug)
	}},
	{"what a leader sends to one other is dropped", func(s *scenario) error {
		from := s.anyLeader()
		return s.cutting(func() error { return s.net.oneWay(from.host, s.other(from).host) }, from, s.other(from))
	}},
	{"what one other sends to a leader is dropped", func(s *scenario) error {
		to := s.anyLeader()
		return s.cutting(func() error { return s.net.oneWay(s.other(to).host, to.host) }, to, s.other(to))
	}},
	{"a leader is alone in a minority", func(s *scenario) error {
		return s.cutOff(s.anyLeader(), s.net.isolate)
	}},
	{"two see the third and not each other", func(s *scenario) error {
		a := s.anyLeader()
		b := s.other(a)
		return s.cutting(func() error { return s.net.cut(a.host, b.host) }, a, b)
	}},
	{"1 % of all packets is lost", func(s *scenario) error {
		return s.cutting(func() error { return s.net.lose(1) })
	}},
	{"a leader dies, and its disk with it", func(s *scenario) error {
		m := s.anyLeader()
		m.kill()
		if err := s.flowsAgain(); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(m.Dir, "data")); err != nil {
			return err
		}
		return m.restart()
	}},
	{"all nodes are restarted one by one (SIGTERM)", func(s *scenario) error {
		for _, m := range s.members {
			if err := m.stop(); err != nil {
				return err
			}
			if err := m.restart(); err != nil {
				return err
			}
			if err := s.settle(); err != nil {
				return err
			}
		}
		return nil
	}},
}

// scaled is a time for a long run, less in CI.
func scaled(d time.Duration) time.Duration {
	if long() {
		return d
	}
	return d / 2
}

// anyLeader is the leader of a topic drawn at random.
func (s *scenario) anyLeader() *member {
	for {
		if m := s.leader(1 + s.rng.IntN(len(topicNames))); m != nil {
			return m
		}
		time.Sleep(50 * time.Millisecond) // seen soon: see observe
	}
}

// flowsAgain waits until every topic acknowledges publishes.
func (s *scenario) flowsAgain() error { return s.flows(s.h.now()) }

// healing is how long after a fault of the network its nodes' clients may still
// see errors: until the nodes see each other again.
const healing = 3 * time.Second

// calmSoon ends a node's trouble when it has had time to find its peers.
func (m *member) calmSoon() { m.calm(healing) }

// cutOff takes a node away from the others for a while. Its clients may be
// refused, those of the others may not.
func (s *scenario) cutOff(m *member, cut func(*host) error) error {
	m.troubled("cut off")
	return errorsOf(cut(m.host), func() error {
		s.hold(scaled(8 * time.Second))
		return s.flowsAgain()
	}, s.net.heal, func() error { m.calmSoon(); return nil })
}

// cutting holds a fault of the network in which nobody may be left without a
// leader for long; nodes at both ends of a cut may refuse.
func (s *scenario) cutting(cut func() error, ends ...*member) error {
	for _, m := range ends {
		m.troubled("cut from one other")
	}
	return errorsOf(cut(), func() error {
		s.hold(scaled(8 * time.Second))
		return s.flowsAgain()
	}, s.net.heal, func() error {
		for _, m := range ends {
			m.calmSoon()
		}
		return nil
	})
}

// errorsOf does one thing after the other, all of them if the first was done.
func errorsOf(first error, then ...func() error) error {
	if first != nil {
		return first
	}
	for _, do := range then {
		if err := do(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// All faults of processes and networks, one after the other, under load.
func TestFaults(t *testing.T) {
	s := newScenario(t, options{bin: plainBinary(t)})
	err := s.all(faults, scale(5, 1))
	s.verdict(err)
	fmt.Printf("note: %d kinds of faults, lost %d\n", len(faults), s.h.kinds()["lost"])
}

// all runs every fault, in another order each round.
func (s *scenario) all(faults []fault, rounds int) error {
	for range rounds {
		for _, i := range s.rng.Perm(len(faults)) {
			if err := s.around(faults[i].name, func() error { return faults[i].do(s) }); err != nil {
				return err
			}
			if err := s.settle(); err != nil {
				return fmt.Errorf("after %s: %w", faults[i].name, err)
			}
		}
	}
	return nil
}

// --- without a majority

// refusals are what a client of a node sees that sees no other: for 5 s publishes
// wait, then they are refused at once.
func TestMinorityRefuses(t *testing.T) {
	s := newScenario(t, options{bin: plainBinary(t)})
	s.verdict(s.around("a leader is alone", s.minority))
}

// Publishing at a node without a majority.
const (
	refuseAfter  = 5 * time.Second       // counted from the loss of the leader
	refuseWithin = 50 * time.Millisecond // once refusing
	// machine is how much later two busy cores may make it
	machine = 2 * time.Second
)

func (s *scenario) minority() error {
	m := s.anyLeader()
	m.troubled("cut off")
	if err := s.net.isolate(m.host); err != nil {
		return err
	}
	begin := time.Now()
	first, err := m.refusal()
	if err != nil {
		return err
	}
	waited := time.Since(begin)
	var later []time.Duration
	for until := begin.Add(refuseAfter + 3*time.Second); time.Now().Before(until); {
		took, err := m.refusal()
		if err != nil {
			return err
		}
		if time.Since(begin)-took > refuseAfter+machine {
			later = append(later, took)
		}
	}
	s.h.mark("first refusal after %s: %s", waited, first)
	if err := s.flowsAgain(); err != nil { // the majority goes on
		return err
	}
	if err := s.net.heal(); err != nil {
		return err
	}
	m.calmSoon()
	median, most := rig.Quantile(later, 0.5), rig.Quantile(later, 1)
	fmt.Printf("figure: minority: first refusal %s after the cut; then %d refusals, median %s max %s\n",
		waited.Round(time.Millisecond), len(later), median.Round(100*time.Microsecond), most.Round(time.Millisecond))
	if waited > refuseAfter+2*machine || median > refuseWithin {
		return fmt.Errorf("first refusal after %s, want %s; later ones take %s, want %s", waited, refuseAfter, median, refuseWithin)
	}
	return nil
}

// refusal publishes by HTTP until it is refused, and says how long that took. The
// topic is one of its own: nobody counts its messages.
func (m *member) refusal() (time.Duration, error) {
	for range 1000 {
		begin := time.Now()
		status, text, err := m.Post("/pub?topic="+probe, []byte("anything"))
		switch {
		case err != nil:
			return 0, err
		case status == 503:
			return time.Since(begin), nil
		case status != 200:
			return 0, fmt.Errorf("answer %d %s", status, text)
		}
	}
	return 0, fmt.Errorf("never refused")
}

// --- disks

// A node whose disk is slow serves on, and hands over what it leads when syncs
// stall; nobody is refused.
func TestSlowSync(t *testing.T) {
	slow := filepath.Join(t.TempDir(), "slow")
	s := newScenario(t, options{bin: faultsBinary(t), env: func(i int) []string {
		if i == 0 {
			return []string{"TIDINGS_VFS=slow:" + slow}
		}
		return nil
	}})
	err := s.around("node a needs 300 ms for a sync", func() error {
		return s.slow(slow, "300ms", func() error {
			s.hold(scaled(6 * time.Second))
			return s.flowsAgain()
		})
	})
	if err == nil {
		err = s.around("the disk of node a stalls", func() error {
			return s.slow(slow, "3s", func() error { return errors.Join(s.handsOver(s.members[0]), s.flowsAgain()) })
		})
	}
	s.verdict(err)
}

// handsOver waits until the node leads no topic any more.
func (s *scenario) handsOver(m *member) error {
	return rig.Await(rig.Patience, func() (bool, error) {
		for topic, name := range topicNames {
			if s.leader(topic+1) == m {
				return false, fmt.Errorf("node %s leads topic %s although its disk stalls", m.host.name, name)
			}
		}
		return true, nil
	})
}

// slow makes a node's syncs as slow as the text says while do runs.
func (s *scenario) slow(file, text string, do func() error) error {
	if err := writeWhole(file, text); err != nil {
		return err
	}
	return errors.Join(do(), os.Remove(file))
}

// writeWhole gives a file its text at one moment: who reads it meanwhile sees all
// or nothing.
func writeWhole(file, text string) error {
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// A full disk on one node: what it leads takes no publishes until the disk has
// room again, or the node has ended and others lead; nothing is lost.
func TestFullDisk(t *testing.T) {
	volume := t.TempDir()
	if err := syscall.Mount("tmpfs", volume, "tmpfs", 0, "size=192m"); err != nil {
		t.Fatalf("mount a small volume: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(volume, syscall.MNT_DETACH) })
	parent := rig.DataDir(t, os.Getenv("CHAOS_KEEP"))
	s := newScenario(t, options{bin: plainBinary(t), dir: func(i int) string {
		if i == 0 {
			return filepath.Join(volume, "a")
		}
		return filepath.Join(parent, string(rune('a'+i)))
	}})
	s.verdict(s.around("the disk of node a is full", func() error {
		return s.full(s.members[0], filepath.Join(volume, "other"))
	}))
}

// full lets another program take all room on the node's volume, for a while.
func (s *scenario) full(m *member, other string) error {
	for _, any := range s.members {
		any.troubled("a disk is full")
	}
	if err := fillUp(other); err != nil {
		return err
	}
	s.hold(scaled(8 * time.Second))
	err := os.Remove(other)
	if !m.Alive() { // a node may end rather than go on without a disk
		s.h.mark("node %s has ended: %s", m.host.name, m.Log.Tail(1))
		err = errors.Join(err, m.restart())
	}
	for _, any := range s.members {
		any.calmSoon()
	}
	return errors.Join(err, s.flowsAgain())
}

// fillUp writes to a file until the volume takes no more.
func fillUp(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}
