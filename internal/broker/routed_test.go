package broker

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/broker/wire"
	"github.com/tidings-io/tidings/internal/fault"
)

var routedCommands = []partition.Command{
	partition.Close{Key: partition.Key{Topic: 5, Partition: 1}},
	partition.CreateChannel{Key: partition.Key{Topic: 5}, Channel: 6},
	partition.DropChannel{Key: partition.Key{Topic: 5}, Channel: 6},
	partition.Empty{Key: partition.Key{Topic: 5}, Channel: 6},
	partition.EmptyTopic{Key: partition.Key{Topic: 5}},
	partition.PauseTopic{Key: partition.Key{Topic: 5}, Paused: true},
	partition.Ingest{Key: partition.Key{Topic: 5}, Session: partition.Session{1}, From: 3, To: 4, Batch: partition.AppendBatch(nil, []Message{{Body: []byte("x")}}, 1)},
}

func TestRoutedCommandComesBack(t *testing.T) {
	for _, c := range routedCommands {
		r := routed{index: 77, topic: "orders", command: c}
		shard, got, err := decodeRouted(r.encode(3))
		if err != nil || shard != 3 || got.index != 77 || got.topic != "orders" {
			t.Fatalf("%d, %+v, %v", shard, got, err)
		}
		if d := cmp.Diff(c, got.command); d != "" {
			t.Error(d)
		}
	}
}

func TestCommandReplyComesBack(t *testing.T) {
	for _, want := range []error{nil, fault.TopicNotFound, fault.New(fault.NotLeader, "shard %d", 4)} {
		got := decodeCommandReply(wire.AppendError([]byte{commandFormat}, want))
		if fault.CodeOf(got) != fault.CodeOf(want) || want != nil && got.Error() != want.Error() {
			t.Errorf("%v came back as %v", want, got)
		}
	}
}

func FuzzDecodeRouted(f *testing.F) {
	for _, c := range routedCommands {
		r := routed{index: 77, topic: "orders", command: c}
		f.Add(r.encode(3))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		shard, r, err := decodeRouted(b)
		if err != nil {
			return
		}
		again, q, err := decodeRouted(r.encode(shard))
		if err != nil || again != shard || q.index != r.index || q.topic != r.topic {
			t.Fatalf("%+v came back as %+v, %v", r, q, err)
		}
	})
}
