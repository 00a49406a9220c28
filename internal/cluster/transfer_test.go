package cluster

import (
	"testing"
	"time"
)

// A voter that is made leader again and again and never leads is left alone for
// longer and longer; what the group prefers else goes on.
func TestTransferBacksOff(t *testing.T) {
	m := newMetadata(t, testNodes(), 0, 3)
	groups := []Group{lead(0), lead(1), lead(2), lead(3)}
	var tried tries
	now, begun := int64(0), map[uint32][]int64{}
	step := func() {
		tried.settle(groups)
		x, ok := NextTransfer(m.View(), live(11, 12, 13), groups, time.Minute, func(x Transfer) bool { return tried.barred(now, x) })
		if !ok {
			return
		}
		tried.begin(now, x)
		begun[x.Shard] = append(begun[x.Shard], now/second)
		if x.Shard == 3 { // node 13 wins its election, node 12 never does
			groups[3].Leads, groups[3].Leader = false, x.To
		}
	}
	for ; now < 3600*second; now += second {
		step()
	}
	gaps := []int64{10, 20, 40, 80, 160, 320, 600, 600, 600, 600}
	if got := begun[2]; len(got) != len(gaps)+1 {
		t.Fatalf("begun at %v", got)
	}
	for i, want := range gaps {
		if got := begun[2][i+1] - begun[2][i]; got != want {
			t.Errorf("try %d came %d s after the one before, want %d", i+1, got, want)
		}
	}
	if got := begun[3]; len(got) != 1 {
		t.Errorf("the other group was handed over at %v", got)
	}
	groups[2].Leader = 12 // it leads at last
	step()
	groups[2].Leader = 11
	if step(); begun[2][len(begun[2])-1] != now/second {
		t.Error("it is still barred")
	}
}
