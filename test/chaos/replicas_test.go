//go:build linux

package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/test/rig"
)

// batch is what replicas agree by.
type batch struct {
	first, last int64
	crc         uint32 // of the record batch
	index       uint64 // of the Raft entry
	time        int64  // ns of the first record
	size        int    // bytes of the record batch
}

func (b batch) String() string {
	return fmt.Sprintf("offsets %d to %d, CRC %08x, entry %d, time %d", b.first, b.last, b.crc, b.index, b.time)
}

// replica is what one node's segment files hold, by log.
type replica map[seglog.LogID][]batch

// readReplica reads the segment files of a data folder. On a node that runs, an
// error may mean no more than that a file is being written.
func readReplica(dir string) (replica, error) {
	r := make(replica)
	err := seglog.Inspect(vfs.OS{}, filepath.ToSlash(filepath.Join(dir, "data", "topics")), func(e seglog.Entry) error {
		if e.Unfinished {
			return nil
		}
		if e.Damage != "" {
			return fmt.Errorf("%s at byte %d: %s", e.File, e.Pos, e.Damage)
		}
		b := e.Batch
		r[e.ID] = append(r[e.ID], batch{b.Base, b.Last(), binary.BigEndian.Uint32(b.Data[crcAt:]), b.Index, b.TimeNs, len(b.Data)})
		return nil
	})
	for id := range r {
		slices.SortFunc(r[id], func(x, y batch) int { return int(min(max(x.first-y.first, -1), 1)) })
		r[id] = slices.Compact(r[id]) // a crash leaves copies of whole batches
	}
	return r, err
}

// crcAt is where Kafka's RecordBatch v2 has its checksum.
const crcAt = 17

// compareReplicas wants all replicas to hold the same batches, without holes from
// the first offset on: nothing was finished on every channel.
func compareReplicas(names []string, all []replica, logs int) error {
	ids := make(map[seglog.LogID]bool)
	for _, r := range all {
		for id := range maps.Keys(r) {
			ids[id] = true
		}
	}
	if len(ids) != logs {
		return fmt.Errorf("the replicas hold %d logs, want %d", len(ids), logs)
	}
	for id := range ids {
		for i, r := range all {
			next := int64(0)
			for _, b := range r[id] {
				if b.first != next {
					return fmt.Errorf("log %v on node %s: %v comes where offset %d is due", id, names[i], b, next)
				}
				next = b.last + 1
			}
			if err := sameBatches(names[0], names[i], all[0][id], r[id]); err != nil {
				return fmt.Errorf("log %v: %w", id, err)
			}
		}
	}
	return nil
}

func sameBatches(a, b string, x, y []batch) error {
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Errorf("batch %d on node %s: %v; on node %s: %v", i, a, x[i], b, y[i])
		}
	}
	if len(x) != len(y) {
		return fmt.Errorf("%d batches on node %s, %d on node %s", len(x), a, len(y), b)
	}
	return nil
}

// sentinelSize is so large that a batch of it does not stay in memory, or in a
// checkpoint, instead of the segment files.
const sentinelSize = 200 << 10

// agree stops the nodes and wants them to hold the same. It publishes one large
// message per topic and waits until it is in every node's segment files; then all
// that stood before it is.
func (c *testCluster) agree() error {
	for i, topic := range allTopics {
		m := c.members[i%members]
		if err := rig.Await(rig.Patience, func() (bool, error) {
			status, text, err := m.Post("/pub?topic="+topic, rig.Filling(sentinelSize))
			if err == nil && status != 200 {
				err = fmt.Errorf("publish to %s: %d %s", topic, status, text)
			}
			return err == nil, err
		}); err != nil {
			return err
		}
	}
	names := make([]string, 0, members)
	for _, m := range c.members {
		names = append(names, m.host.name)
	}
	if err := rig.Await(rig.Patience, func() (bool, error) {
		all, err := c.replicas()
		if err == nil {
			err = errors.Join(compareReplicas(names, all, len(allTopics)), all[0].sealed())
		}
		return err == nil, err
	}); err != nil {
		return fmt.Errorf("the replicas do not become the same: %w", err)
	}
	for _, m := range c.members {
		if err := m.stop(); err != nil {
			return err
		}
	}
	for _, m := range c.members {
		if out, code := rig.Command(c.t, c.members[0].Bin, "log", "verify", "--data-path", filepath.Join(m.Dir, "data")); code != 0 {
			return fmt.Errorf("log verify on the files of node %s: exit code %d: %s", m.host.name, code, strings.TrimSpace(out))
		}
	}
	all, err := c.replicas()
	if err != nil {
		return err
	}
	return compareReplicas(names, all, len(allTopics))
}

// sealed wants the large message at the end of every log.
func (r replica) sealed() error {
	for id, batches := range r {
		if last := batches[len(batches)-1]; last.size < sentinelSize {
			return fmt.Errorf("log %v ends with %v", id, last)
		}
	}
	return nil
}

func (c *testCluster) replicas() (all []replica, err error) {
	for _, m := range c.members {
		r, err := readReplica(m.Dir)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", m.host.name, err)
		}
		all = append(all, r)
	}
	return all, nil
}
