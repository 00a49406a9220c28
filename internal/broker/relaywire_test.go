package broker

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/fault"
)

func sampleRelayed() *relayed {
	return &relayed{
		from: sender{7, 1 << 60}, conversation: 3, number: 9, topic: 12, channelID: 14, channel: "audit",
		RelayRequest: delivery.RelayRequest{
			Opens: []delivery.MirrorOpen{{Mirror: 1, MsgTimeout: time.Minute, MaxMsgTimeout: time.Hour, SampleRate: 50}},
			Parts: []int32{0, 5},
			Holds: []delivery.MirrorHolds{{Mirror: 1, Messages: []delivery.HeldMessage{{Part: 2, Offset: 1 << 40, Attempts: 3, Age: time.Second, Left: 5 * time.Second}}}},
			Ops: []delivery.RelayedOp{
				{Mirror: 1, Kind: delivery.Return, Part: 1, Offset: 5, Attempts: 1, Delay: time.Millisecond},
				{Mirror: 1, Part: 1, Offset: 6, Attempts: 1},
				{Mirror: 1, Part: 1, Offset: 7, Attempts: 1},
				{Mirror: 1, Part: 1, Offset: 8, Attempts: 1},
				{Mirror: 1, Part: 1, Offset: 9, Attempts: 2},
				{Mirror: 2, Part: 1, Offset: 10, Attempts: 2},
				{Mirror: 2, Part: 1, Offset: 12, Attempts: 2},
			},
			Closes: []delivery.MirrorClose{{Mirror: 4, Abnormal: true}, {Mirror: 5, Ended: true, Moved: true}},
			Pulls:  []delivery.MirrorPull{{Mirror: 1, N: 2500}, {Mirror: 2}},
		},
	}
}

func TestRelayWire(t *testing.T) {
	want := sampleRelayed()
	got := new(relayed)
	if err := decodeRelayed(appendRelayed(nil, want), got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(relayed{}, sender{})); d != "" {
		t.Error(d)
	}

	var p relayReply
	p.fail(0, fault.NotOwner)
	p.lose(1, &delivery.HeldMessage{Part: 1, Offset: 2})
	p.unknownMirror(9)
	body, key := []byte("body"), []byte("key")
	p.pull(1, true, []delivery.Delivery{ // two in a run, and then each with something that ends it
		{Part: 3, Offset: 4, TimeNs: 500, Attempts: 6, Body: body, Key: key},
		{Part: 3, Offset: 5, TimeNs: 900, Attempts: 6, Body: body, Key: key[:0]},
		{Part: 3, Offset: 6, TimeNs: 901, Attempts: 6, Body: body},
		{Part: 3, Offset: 8, TimeNs: 903, Attempts: 6, Body: body[:0]},
		{Part: 3, Offset: 9, TimeNs: 902, Attempts: 6, Body: body},
		{Part: 3, Offset: 10, TimeNs: 903, Attempts: 7, Body: body},
		{Part: 2, Offset: 11, TimeNs: 904, Attempts: 7, Body: body},
	})
	p.pull(2, false, nil)
	p.life = 1 << 63
	var reply relayAnswer
	bad := decodeRelayReply(p.encode(fault.New(fault.NotLeader, "gone")), &reply)
	if bad != nil || fault.CodeOf(reply.refused) != fault.NotLeader || reply.life != p.life {
		t.Fatal(reply, bad)
	}
	if d := cmp.Diff(delivery.RelayReply{
		Failures: []delivery.OpFailure{{Index: 0, Owner: true}}, Lost: []delivery.HoldLost{{Mirror: 1, Part: 1, Offset: 2}}, Unknown: []uint64{9},
		Pulled: []delivery.MirrorPulled{{Mirror: 1, Waits: true, Messages: []delivery.RelayedMessage{
			{Part: 3, Offset: 4, TimeNs: 500, Attempts: 6, Body: body, Key: key},
			{Part: 3, Offset: 5, TimeNs: 900, Attempts: 6, Body: body, Key: key[:0]},
			{Part: 3, Offset: 6, TimeNs: 901, Attempts: 6, Body: body},
			{Part: 3, Offset: 8, TimeNs: 903, Attempts: 6, Body: body[:0]},
			{Part: 3, Offset: 9, TimeNs: 902, Attempts: 6, Body: body},
			{Part: 3, Offset: 10, TimeNs: 903, Attempts: 7, Body: body},
			{Part: 2, Offset: 11, TimeNs: 904, Attempts: 7, Body: body},
		}}, {Mirror: 2, Messages: []delivery.RelayedMessage{}}},
	}, reply.RelayReply); d != "" {
		t.Error(d)
	}

	r := &rung{to: sender{1, 2}, bells: []bell{{3, 4}}, emptied: []emptied{{5, 6, 7}}}
	if got, err := decodeRung(r.encode()); err != nil || !cmp.Equal(r, got, cmp.AllowUnexported(rung{}, sender{}, bell{}, emptied{})) {
		t.Error(got, err)
	}
	for _, p := range []presence{{from: sender{1, 2}, shard: 3}, {from: sender{4, 5}, gone: true}} {
		if got, err := decodePresence(p.encode()); err != nil || *got != p {
			t.Error(got, err)
		}
	}
	if life, err := decodePresenceReply(presenceReply(7)); err != nil || life != 7 {
		t.Error(life, err)
	}
	if _, err := decodePresenceReply(errorReply(fault.NotLeader)); fault.CodeOf(err) != fault.NotLeader {
		t.Error(err)
	}
}

// What is no request of ours is an error, and nothing worse.
func FuzzDecodeRelayed(f *testing.F) {
	f.Add(appendRelayed(nil, sampleRelayed()))
	f.Add((&rung{bells: []bell{{3, 4}}}).encode())
	f.Add((&relayReply{}).encode(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, again := new(relayed), new(relayed)
		if decodeRelayed(b, q) == nil {
			err := decodeRelayed(appendRelayed(nil, q), again)
			if err != nil || !cmp.Equal(q, again, cmp.AllowUnexported(relayed{}, sender{})) {
				t.Error(cmp.Diff(q, again, cmp.AllowUnexported(relayed{}, sender{})), err)
			}
		}
		_, _ = decodeRung(b)
		_, _ = decodePresence(b)
		_ = decodeRelayReply(b, new(relayAnswer))
	})
}
