package node

import (
	"context"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// Data shards are opened when the data folder is, as many as NODE says, and later those
// that are added to the cluster: growShards is called by metadata before anybody sees
// them. It
//
//  1. opens the groups, which writes their first checkpoints: the voters with which
//     each begins. On a node that is no voter, or came when metadata did not know it
//     as one, a group begins empty, and gets its state from the others.
//  2. notes their number in NODE, so that the next start opens them before anything
//     that may sweep files or release the log.
//  3. lets them run. Only from here on do they speak, vote and write.
//
// After a crash before 2, metadata is replayed from before the shards, or its
// checkpoint has them, and the same happens again: checkpoints that are there are
// opened. A node that was down when shards were added comes here when it hears of them.

// growShards opens the data shards that are not open yet, on the loop of the metadata
// group; while the node opens, on no loop.
func (n *Node) growShards(shards []meta.Shard) error {
	if n.broker == nil {
		return nil // openGroups calls it, when all that is here is open
	}
	have := n.machines.Len()
	if len(shards) <= have {
		return nil
	}
	for _, s := range shards[have:] {
		if err := n.openShard(s.ID, s.Began); err != nil {
			return fmt.Errorf("open the shards that were added: %w", err)
		}
	}
	if err := n.dir.grow(n.fs, len(shards)); err != nil {
		return fmt.Errorf("note the shards that were added: %w", err)
	}
	machines, groups := n.machines.All(), n.groups.All()
	for id := have + 1; id <= len(shards); id++ {
		n.flusher.Add(groups[id])
		n.broker.AddShard(machines[id-1])
		n.loops.add(fmt.Sprintf("shard %d", id), groups[id].Run)
	}
	n.log.Info("data shards were added", "data_shards", len(shards))
	return nil
}

// openShard opens the group of a data shard, which does not run yet: the one behind
// the last. began is as for openGroup.
func (n *Node) openShard(id uint32, began []uint64) error {
	g := &late{}
	pm := partition.New(partition.Options{
		Shard: id, Store: n.store, FS: n.fs, Dir: path.Join(n.shardDir(id), "parked"), Follower: n.member != nil,
		Leads: func(leads bool) { n.leads(id, leads) }, Wake: g.wake, Drive: g.drive, WakeFlusher: n.wakeFlusher, Reserve: n.reserve.Reached, InboxBytes: int64(n.cfg.MaxInboxSize), TailBytes: int64(n.cfg.TailSize),
	})
	if err := n.openGroup(id, pm, g, began); err != nil {
		return err
	}
	n.machines.Add(pm)
	return nil
}

// leadersFor bounds how long addShards waits until the new shards have leaders.
const leadersFor = 10 * time.Second

// addShards adds data shards to the cluster, whoever leads it; see
// admin.Options.AddShards.
func (n *Node) addShards(ctx context.Context, count int) (ids []uint32, waits string, err error) {
	if !n.opened.Load() {
		return nil, "", fault.New(fault.Exiting, "add shards: the node is starting")
	}
	view := n.meta.View()
	if view.Formed() && view.Feature < 2 {
		return nil, "", fault.New(fault.Unsupported, "add shards: this data folder is of the first version, whose number of shards is fixed")
	}
	voters, err := view.Place(count, n.down())
	if err != nil {
		return nil, "", err
	}
	done := make(chan error, 1)
	n.meta.AddShards(len(view.Shards), voters, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return nil, "", err
		}
	case <-ctx.Done():
		return nil, "", fault.Wrap(fault.Timeout, fmt.Errorf("add shards: the outcome is unknown: %w", ctx.Err()))
	}
	for i := range voters {
		ids = append(ids, uint32(len(view.Shards)+i)+1)
	}
	n.log.Info("more data shards were asked for", "data_shards", len(view.Shards)+count)
	return ids, n.awaitLeaders(ctx, ids), nil
}

// down tells the members whose lease has lapsed.
func (n *Node) down() func(raftID uint64) bool {
	lapsed := make(map[uint64]bool)
	if n.member != nil {
		for _, l := range n.member.agent.Load().Leases() {
			lapsed[l.RaftID] = l.State == cluster.LeaseLapsed
		}
	}
	return func(id uint64) bool { return lapsed[id] }
}

// awaitLeaders waits until shards have leaders, and says what is missing if that takes
// too long.
func (n *Node) awaitLeaders(ctx context.Context, ids []uint32) (waits string) {
	ctx, cancel := context.WithTimeout(ctx, leadersFor)
	defer cancel()
	for _, id := range ids {
		for !n.led(id) {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Sprintf("shard %d has no leader yet", id)
			}
		}
	}
	return ""
}

// led reports whether a shard has a leader that this node knows of.
func (n *Node) led(id uint32) bool {
	if n.member != nil {
		leader, _ := n.member.leader(id)
		return leader != 0
	}
	g, ok := n.groups.At(int(id))
	return ok && g.Leader()
}

// launcher starts what may be added before there is anything to start it with, and
// after.
type launcher struct {
	mu    sync.Mutex
	start func(name string, run func(context.Context) error)
	early []func()
	ended bool
}

// add has run started: now, or when begin is called; after end it is not.
func (l *launcher) add(name string, run func(context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
	case l.start != nil:
		l.start(name, run)
	default:
		l.early = append(l.early, func() { l.start(name, run) })
	}
}

// begin starts what was added, and from now on what is. start must not block.
func (l *launcher) begin(start func(name string, run func(context.Context) error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start = start
	for _, f := range l.early {
		f()
	}
	l.early = nil
}

// end lets nothing be started any more.
func (l *launcher) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}
