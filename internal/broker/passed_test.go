package broker

import (
	"errors"
	"slices"
	"testing"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

func TestPassedOnTheWire(t *testing.T) {
	q := passedQuestion{topic: 12, channel: 1 << 60, count: 4096, parts: []int32{0, 7, 4095}}
	whole := q.encode()
	got, err := decodePassedQuestion(whole)
	if err != nil || got.topic != q.topic || got.channel != q.channel || got.count != q.count || !slices.Equal(got.parts, q.parts) {
		t.Errorf("read %+v, %v", got, err)
	}
	reply := appendParts([]byte{relayFormat}, q.parts)
	if parts, err := decodePassed(reply); err != nil || !slices.Equal(parts, q.parts) {
		t.Errorf("read %v, %v", parts, err)
	}
	for n := range whole {
		if _, err := decodePassedQuestion(whole[:n]); err == nil {
			t.Errorf("a question of %d bytes is read", n)
		}
	}
	for n := range reply {
		if _, err := decodePassed(reply[:n]); err == nil {
			t.Errorf("an answer of %d bytes is read", n)
		}
	}
	if _, err := decodePassed(appendParts([]byte{relayFormat}, []int32{meta.MaxPartitions})); err == nil {
		t.Error("a partition that can't be is read")
	}
}

// What waits while partitions are raised is bounded, and nothing is taken behind the
// end.
func TestReroutingIsBounded(t *testing.T) {
	r := &rerouting{}
	msgs := []Message{{Key: []byte("k"), Body: make([]byte, 60)}}
	for i, want := range []error{nil, nil, fault.Overloaded} {
		if taken, err := r.take("orders", msgs, nil, 120); !taken || !errors.Is(err, want) {
			t.Errorf("publish %d: taken %v, %v, want %v", i, taken, err, want)
		}
	}
	r.over = true
	if taken, err := r.take("orders", msgs, nil, 120); taken || err != nil {
		t.Errorf("behind the end: taken %v, %v", taken, err)
	}
}
