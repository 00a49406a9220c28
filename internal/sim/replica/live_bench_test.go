package replica

import (
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
)

// BenchmarkCatchUp has an empty replica catch up 1 GiB on real files, over links
// that cost nothing, as fast as a node's default allows and as fast as it goes.
func BenchmarkCatchUp(b *testing.B) {
	for name, rate := range map[string]int64{"default": shard.DefaultSendRate, "unlimited": 0} {
		b.Run(name, func(b *testing.B) {
			const total, body = 1 << 30, 256 << 10
			l := &live{t: b, nodes: make(map[uint64]*liveNode), large: true}
			root := b.TempDir()
			l.root = func(id uint64) string { return filepath.Join(root, strconv.FormatUint(id, 10)) }
			l.tune = func(o *shard.Options) { o.ChunkBytes, o.SendLimit = 256<<10, shard.NewLimiter(rate) }
			for id := range uint64(2) {
				defer l.start(id+1, vfs.OS{}).stop()
			}
			l.until("a leader", func() bool { return l.leader() != nil })
			opened := make(chan error, 1)
			l.leader().machine.Do(partition.Open{Key: partition.Key{Topic: 7}}, func(err error) { opened <- err })
			if err := <-opened; err != nil {
				b.Fatal(err)
			}
			answers := make(published, 4)
			for i := range total / body {
				err := l.leader().machine.Publish(&partition.Publish{
					Topic: 7, Messages: []partition.Message{{Body: make([]byte, body)}}, Done: answers,
				})
				if err != nil {
					b.Fatal(err)
				}
				if i >= 4 {
					if err := <-answers; err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ResetTimer()
			began := time.Now()
			back := l.start(3, vfs.OS{})
			defer back.stop()
			l.until("the third node catches up", func() bool { return l.caughtUp.Load() > 0 })
			b.StopTimer()
			b.ReportMetric(total/1e6/time.Since(began).Seconds(), "MB/s")
		})
	}
}
