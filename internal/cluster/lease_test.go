package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/meta"
)

const second = int64(time.Second)

func TestLeases(t *testing.T) {
	l := NewLeases(100 * second)
	renew := func(at int64, id, boot uint64, sync time.Duration) bool {
		r := Renewal{SyncNs: uint64(sync)}
		r.Node.ID, r.Node.Boot = id, boot
		return l.Renew(at*second, r)
	}
	state := func(at int64, id uint64, want LeaseState) {
		t.Helper()
		if got := l.State(at*second, id); got != want {
			t.Errorf("at %d s node %d is %s, want %s", at, id, got, want)
		}
	}
	renew(100, 1, 11, 0)
	state(101, 1, LeaseLive)
	state(104, 2, LeaseUnknown)
	state(105, 2, LeaseLapsed) // never came
	state(105, 1, LeaseLapsed)
	if got := l.Lapsed(105*second, nil); !slices.Equal(got, []uint64{11}) {
		t.Errorf("lapsed %v", got)
	}
	if got := l.Lapsed(106*second, nil); len(got) != 0 {
		t.Errorf("lapsed again: %v", got)
	}
	renew(107, 1, 11, 2*time.Second)
	state(107, 1, LeaseLive)
	renew(108, 1, 11, 0)
	list := l.List(110*second, []uint64{2, 1})
	if got := list[0]; got.RaftID != 1 || got.Age != 2*time.Second || got.Since != 3*time.Second || got.Calm != 3*time.Second || got.Boot != 11 {
		t.Errorf("lease %+v", got)
	}
	if got := list[0].aged(3 * time.Second); got.State != LeaseLapsed || got.Since != 0 {
		t.Errorf("an old list shows %+v", got)
	}
	if list[1].State != LeaseLapsed {
		t.Errorf("lease %+v", list[1])
	}
	// a new process, and a late renewal of the one before
	if !renew(111, 1, 12, 0) || renew(112, 1, 11, 0) || l.List(112*second, []uint64{1})[0].Boot != 12 {
		t.Error("the process before came back")
	}
	if got := l.List(113*second, []uint64{1})[0].Since; got != 2*time.Second {
		t.Errorf("the new process is live for %s", got)
	}
	l.Forget(1)
	state(113, 1, LeaseLapsed)
}

// The leader that crashed never renews at the next one: what lived with its
// process must go all the same.
func TestMemberThatNeverRenewedLapses(t *testing.T) {
	l := NewLeases(100 * second)
	members := []meta.Node{{ID: 1, Boot: 11}, {ID: 2, Boot: 22}, {ID: 3}}
	live := Renewal{Node: members[1]}
	l.Renew(103*second, live)
	if got := l.Lapsed(104*second, members); len(got) != 0 {
		t.Errorf("within the first term lapsed %v", got)
	}
	if got := l.Lapsed(105*second, members); !slices.Equal(got, []uint64{11}) {
		t.Errorf("lapsed %v", got)
	}
	if got := l.Lapsed(106*second, members); len(got) != 0 {
		t.Errorf("lapsed again: %v", got)
	}
	back := Renewal{Node: members[0]}
	if !l.Renew(107*second, back) || l.State(107*second, 1) != LeaseLive || l.List(107*second, []uint64{1})[0].Since != 0 {
		t.Error("it did not come back")
	}
}

// What was to be done about a process is done again, as long as it is gone.
func TestLapsedAgain(t *testing.T) {
	l := NewLeases(0)
	l.Renew(0, Renewal{Node: meta.Node{ID: 1, Boot: 11}})
	for range 2 {
		if got := l.Lapsed(5*second, nil); !slices.Equal(got, []uint64{11}) {
			t.Fatalf("lapsed %v", got)
		}
		if got := l.Lapsed(6*second, nil); len(got) != 0 {
			t.Fatalf("lapsed again: %v", got)
		}
		l.Again(11)
	}
	l.Renew(7*second, Renewal{Node: meta.Node{ID: 1, Boot: 11}})
	if got := l.Lapsed(8*second, nil); len(got) != 0 {
		t.Errorf("it is back, and lapsed: %v", got)
	}
}
