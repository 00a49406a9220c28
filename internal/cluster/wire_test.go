package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tidings-io/tidings/internal/meta"
)

const testCluster = "0123456789abcdef0123456789abcdef"

func testNodes() []meta.Node {
	return []meta.Node{
		{ID: 11, Name: "a", Addr: "10.0.0.1:4160", TCP: "10.0.0.1:4150", HTTP: "10.0.0.1:4151", Broadcast: "a.example", Boot: 7},
		{ID: 12, Name: "b", Addr: "10.0.0.2:4160"},
		{ID: 13, Name: "c", Addr: "10.0.0.3:4160"},
	}
}

func testPositions() []Position {
	return []Position{
		{Shard: 0, Leads: true, Term: 3, Applied: 90, Commit: 91},
		{Shard: 8, Applied: 1, Session: Session{Stage: "receive", Bytes: 5, Total: 1 << 40, Rate: 7e7}},
	}
}

// roundTrip decodes what was encoded, and no prefix of it.
func roundTrip[T any](t *testing.T, encoded []byte, want T, decode func([]byte) (T, error)) {
	t.Helper()
	got, err := decode(encoded)
	if err != nil {
		t.Fatalf("%T: %v", want, err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%T (-sent +received):\n%s", want, diff)
	}
	for n := range encoded {
		if _, err := decode(encoded[:n]); err == nil {
			t.Errorf("%T: %d bytes of %d were taken", want, n, len(encoded))
		}
	}
	if _, err := decode(append([]byte{wireVersion + 1}, encoded[1:]...)); err == nil {
		t.Errorf("%T: another version was taken", want)
	}
}

func TestWire(t *testing.T) {
	hello := Hello{RaftID: 1 << 62, Prepare: true}
	roundTrip(t, hello.encode(), hello, decodeHello)
	answer := HelloAnswer{
		Node: testNodes()[0], Stage: Accepted, Seeds: []string{"a:1", "b:1", "c:1"}, Cluster: testCluster,
		Attempt: Attempt{2, 99}, Members: testNodes(), Ticket: Ticket{5, 6},
	}
	roundTrip(t, answer.encode(), answer, decodeHelloAnswer)
	form := Form{
		Ticket: Ticket{5, 6}, Cluster: testCluster, Attempt: Attempt{2, 99}, Members: testNodes(),
		Voters: meta.Layout(testNodes(), 8, 3),
	}
	roundTrip(t, form.encode(), form, decodeForm)
	roundTrip(t, FormAnswer{"no"}.encode(), FormAnswer{"no"}, decodeFormAnswer)
	join := Join{Cluster: testCluster, Was: 11, Node: testNodes()[1]}
	roundTrip(t, join.encode(), join, decodeJoin)
	welcome := JoinAnswer{Reason: "x", Attempt: Attempt{2, 99}, Members: testNodes(), Shards: 8}
	roundTrip(t, welcome.encode(), welcome, decodeJoinAnswer)
	renewal := Renewal{Cluster: testCluster, Node: testNodes()[0], SyncNs: 5e6, Positions: testPositions()}
	roundTrip(t, renewal.encode(), renewal, decodeRenewal)
	leases := RenewalAnswer{Leader: 11, Leases: []Lease{
		{RaftID: 11, Boot: 7, State: LeaseLive, Age: time.Second, Since: time.Minute, Sync: 3e6, Calm: time.Hour, Positions: testPositions()},
		{RaftID: 12, State: LeaseLapsed},
	}}
	roundTrip(t, leases.encode(), leases, decodeRenewalAnswer)

	long := FormAnswer{Reason: strings.Repeat("x", 5000)}
	if got, err := decodeFormAnswer(long.encode()); err != nil || len(got.Reason) != maxText {
		t.Errorf("a long reason: %d bytes, %v", len(got.Reason), err)
	}
}

// Whatever comes from the network is read or refused, and what is read can be
// sent on.
func FuzzDecode(f *testing.F) {
	f.Add(Hello{RaftID: 1}.encode())
	f.Add(HelloAnswer{Node: testNodes()[0], Cluster: testCluster, Members: testNodes()}.encode())
	f.Add(Form{Cluster: testCluster, Members: testNodes(), Voters: meta.Layout(testNodes(), 2, 3)}.encode())
	f.Add(FormAnswer{"no"}.encode())
	f.Add(Join{Cluster: testCluster, Node: testNodes()[0]}.encode())
	f.Add(JoinAnswer{Members: testNodes()}.encode())
	f.Add(Renewal{Node: testNodes()[0], Positions: testPositions()}.encode())
	f.Add(RenewalAnswer{Leases: []Lease{{RaftID: 1, Positions: testPositions()}}}.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		again(t, data, decodeHello, Hello.encode)
		again(t, data, decodeHelloAnswer, HelloAnswer.encode)
		again(t, data, decodeForm, Form.encode)
		again(t, data, decodeFormAnswer, FormAnswer.encode)
		again(t, data, decodeJoin, Join.encode)
		again(t, data, decodeJoinAnswer, JoinAnswer.encode)
		again(t, data, decodeRenewal, Renewal.encode)
		again(t, data, decodeRenewalAnswer, RenewalAnswer.encode)
	})
}

func again[T any](t *testing.T, data []byte, decode func([]byte) (T, error), encode func(T) []byte) {
	v, err := decode(data)
	if err != nil {
		return
	}
	back, err := decode(encode(v))
	if err != nil {
		t.Fatalf("%+v: %v", v, err)
	}
	if diff := cmp.Diff(v, back, cmpopts.EquateEmpty()); diff != "" {
		t.Fatal(diff)
	}
}

// No request, however made, stops a Former.
func FuzzServe(f *testing.F) {
	f.Add(uint16(MethodHello), Hello{RaftID: 5, Prepare: true}.encode())
	f.Add(uint16(MethodForm), Form{Cluster: testCluster, Attempt: Attempt{1, 1}, Members: testNodes(), Voters: meta.Layout(testNodes(), 2, 3)}.encode())
	f.Fuzz(func(t *testing.T, m uint16, data []byte) {
		former, err := NewFormer(FormerOptions{
			Identity: Identity{Name: "b", RaftID: 12}, Seeds: []Peer{{Addr: "a:1"}, {Addr: "b:1"}, {Addr: "c:1"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		out, err := former.Serve(0, "a", Method(m), data, nil)
		if err == nil && out.Write != nil {
			t.Fatal("accepted without a ticket")
		}
	})
}

func TestParseSeeds(t *testing.T) {
	seeds, err := ParseSeeds([]string{"a=10.0.0.1:4160", " b.example:4160", "c=[::1]:4160"})
	want := []Peer{{"a", "10.0.0.1:4160"}, {"", "b.example:4160"}, {"c", "[::1]:4160"}}
	if diff := cmp.Diff(want, seeds); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for text, reason := range map[string]string{
		"a:1,b:1":                 "2 seeds cannot form",
		"a:1,b:1,c:1,d:1":         "4 seeds cannot form",
		"a:1,b:1,c:1,d:1,e:1,f:1": "6 seeds cannot form",
		"a:1,a:1,b:1":             "twice",
		"x=a:1,x=b:1,c:1":         "twice",
		"a":                       "neither",
		"=a:1":                    "neither",
		"a:0":                     "neither",
		"::1:4160":                "neither",
		"a:b":                     "neither",
		"0.0.0.0:1":               "says not where",
		"n=[::]:1":                "says not where",
	} {
		if _, err := ParseSeeds(strings.Split(text, ",")); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
