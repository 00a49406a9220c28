package partition

import (
	"math/rand/v2"
	"testing"

	"github.com/tidings-io/tidings/internal/fault"
)

// reused is a publish whose owner makes something else of it when it is
// answered.
type reused struct {
	answer
	Publish
}

func (u *reused) Published(base int64, err error) {
	u.answer.Published(base, err)
	u.Publish = Publish{Topic: 99, Messages: bodies(9)}
	u.next, u.bytes, u.before = &u.Publish, 1<<40, 1<<40
}

// put publishes n messages.
func (r *rig) put(n int, ackLeader bool, l Link) *reused {
	r.t.Helper()
	u := &reused{}
	u.Publish = Publish{Topic: one.Topic, Messages: bodies(n), AckLeader: ackLeader, Link: l, Done: u}
	if err := r.m.Publish(&u.Publish); err != nil {
		r.t.Fatalf("publish: %v", err)
	}
	return u
}

// synced says that the newest entry is durable.
func (r *rig) synced() { r.m.Synced(r.inflight[len(r.inflight)-1].token) }

func TestLeaderAlone(t *testing.T) {
	r := linkRig(t)
	rng := rand.New(rand.NewPCG(1, 1))
	total, bytes := int64(0), int64(0)
	for range 200 {
		var list []*reused
		var eager []bool
		var bases []int64
		for range 1 + rng.IntN(9) {
			n := 1 + rng.IntN(4)
			eager = append(eager, rng.IntN(2) == 0)
			bases = append(bases, total)
			list = append(list, r.put(n, eager[len(list)], Link{}))
			total += int64(n)
			for _, m := range bodies(n) {
				bytes += int64(len(m.Body))
			}
		}
		r.propose()
		early := rng.IntN(3) > 0
		if early {
			r.synced()
			r.synced() // nothing more
		}
		for i, u := range list {
			if got := u.called == 1; got != (early && eager[i]) || got && (u.base != -1 || u.err != nil) {
				t.Fatalf("publish %d (%v): %d answers, base %d, %v", i, eager[i], u.called, u.base, u.err)
			}
		}
		r.commit()
		for i, u := range list {
			want := bases[i]
			if early && eager[i] {
				want = -1
			}
			wantAnswer(t, "publish", &u.answer, want, nil)
		}
	}
	p, err := r.m.find(one)
	if err != nil || p.end != total || p.messages != total || p.bytes != bytes {
		t.Errorf("end %d, %d messages, %d bytes, %v; want %d, %d bytes", p.end, p.messages, p.bytes, err, total, bytes)
	}
}

// TestLeaderAloneIsNotAnsweredTwice when the entry is dropped after all.
func TestLeaderAloneIsNotAnsweredTwice(t *testing.T) {
	r := linkRig(t)
	list := []*reused{r.put(1, true, Link{}), r.put(2, false, Link{}), r.put(1, true, Link{})}
	r.propose()
	r.synced()
	r.elect()
	wantAnswer(t, "first", &list[0].answer, -1, nil)
	wantAnswer(t, "second", &list[1].answer, 0, errLost)
	wantAnswer(t, "third", &list[2].answer, -1, nil)
	r.publish(one, 1)
	r.m.Synced("no token of this machine")
	r.m.Synced(nil)
}

// TestLeaderAloneRefuses what it can know to be refused.
func TestLeaderAloneRefuses(t *testing.T) {
	r := linkRig(t)
	u := &reused{}
	u.Publish = Publish{Topic: six.Topic, Partition: six.Partition, Messages: bodies(1), AckLeader: true, Done: u}
	if err := r.m.Publish(&u.Publish); err != nil {
		t.Fatal(err)
	}
	r.propose()
	r.synced()
	r.commit()
	wantAnswer(t, "no topic", &u.answer, 0, fault.TopicNotFound)

	lost := r.put(1, true, Link{Producer: 5, Epoch: 1, Seq: 1})
	r.propose()
	built := r.put(1, true, Link{Producer: 5, Epoch: 1, Seq: 2})
	r.propose()
	r.m.Drop(r.inflight[0].token, errLost)
	r.inflight = r.inflight[1:]
	r.synced()
	r.commit()
	wantAnswer(t, "lost", &lost.answer, 0, errLost)
	wantAnswer(t, "built on it", &built.answer, 0, fault.OutOfOrder)
}

// TestLeaderAloneLeavesAHole that the next leader lets the producer pass.
func TestLeaderAloneLeavesAHole(t *testing.T) {
	r := linkRig(t)
	first := r.put(1, false, Link{Producer: 5, Epoch: 1, Seq: 1})
	r.settle()
	lost := r.put(1, true, Link{Producer: 5, Epoch: 1, Seq: 2})
	r.propose()
	r.synced()
	r.elect()
	next := r.put(1, true, Link{Producer: 5, Epoch: 1, Seq: 3, Oldest: true})
	repeat := r.put(1, true, Link{Producer: 5, Epoch: 1, Seq: 3, Oldest: true})
	r.propose()
	r.synced()
	wantAnswer(t, "next", &next.answer, -1, nil)
	if repeat.called > 0 {
		t.Error("a repeated publish is answered before it is fact")
	}
	r.settle()
	wantAnswer(t, "first", &first.answer, 0, nil)
	wantAnswer(t, "lost", &lost.answer, -1, nil)
	wantAnswer(t, "repeat", &repeat.answer, -1, nil)
	if p := r.m.partitions[one]; p.end != 2 {
		t.Errorf("end %d", p.end)
	}
	r.check()
}
