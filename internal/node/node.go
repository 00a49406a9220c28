// Package node builds everything a node is made of and runs it.
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/front/admin"
	"github.com/tidings-io/tidings/internal/front/console"
	"github.com/tidings-io/tidings/internal/front/nsq"
	"github.com/tidings-io/tidings/internal/front/nsqadmin"
	"github.com/tidings-io/tidings/internal/grow"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/telemetry/statsd"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

// Options of a node.
type Options struct {
	Config   config.Config
	FS       vfs.FS
	Logger   *slog.Logger
	LogLevel *slog.LevelVar // changed by PUT /config/log_level
	// Origins tells where settings come from, by file key (config.Origins), and
	// ConfigFile is the configuration file; both are for people to look at.
	Origins    map[string]string
	ConfigFile string
}

// SettingError is a setting that can't be, which shows only when the node is
// built.
type SettingError struct {
	Name string // of the flag
	Err  error
}

func (e *SettingError) Error() string { return "--" + e.Name + ": " + e.Err.Error() }
func (e *SettingError) Unwrap() error { return e.Err }

// Addrs are where a node listens, with the ports it really got.
//
// HTTPS is empty where it is not served.
type Addrs struct{ TCP, HTTP, HTTPS, Admin, LookupTCP, LookupHTTP, NSQAdmin string }

// Node is a data folder, the engine on it, and the fronts.
type Node struct {
	cfg    config.Config
	fs     vfs.FS
	log    *slog.Logger
	dir    *dataDir
	fronts listeners
	secure *security
	member *member // nil: the node is alone
	level  *slog.LevelVar
	start  time.Time
	from   origins

	wal      *wal.WAL
	store    *seglog.Store
	groups   grow.List[*shard.Group] // 0: metadata
	loops    launcher                // of the groups
	meta     *meta.Machine
	machines grow.List[*partition.Machine] // of the data shards, from 1 on
	flusher  *shard.Flusher
	reserve  *reserve
	broker   *broker.Broker
	spool    *localSpool // of a node of a cluster
	nsq      *nsq.Front
	admin    *admin.Front
	console  *console.Console
	metrics  *lateHandler
	opened   atomic.Bool // the engine is there
	caughtUp atomic.Bool // and is as far as it was when it ended
	lookups  lookups
	statsd   *statsd.Sender  // nil: nobody wants it
	nsqadmin *nsqadmin.Front // nil: not served
}

// listeners are the sockets, bound before anything is opened, so that a busy
// port is known at once.
type listeners struct{ tcp, http, https, admin, cluster, lookupTCP, lookupHTTP, nsqadmin net.Listener }

func (l listeners) close() {
	for _, x := range []net.Listener{l.tcp, l.http, l.https, l.admin, l.cluster, l.lookupTCP, l.lookupHTTP, l.nsqadmin} {
		if x != nil {
			x.Close()
		}
	}
}

// New binds the sockets and takes the data folder. A node that is alone also
// recovers what is in the folder; a node of a cluster does that in Run, once it
// belongs to one. The node serves when Run does.
func New(o Options) (*Node, error) {
	n := &Node{cfg: o.Config, fs: o.FS, log: o.Logger, level: o.LogLevel, start: time.Now(), from: origins{o.Origins, o.ConfigFile}}
	var err error
	if n.secure, err = newSecurity(&n.cfg, n.log); err != nil {
		return nil, err
	}
	if err := n.listen(); err != nil {
		return nil, err
	}
	if err := n.build(); err != nil {
		n.fronts.close()
		return nil, err
	}
	return n, nil
}

func (n *Node) build() (err error) {
	if n.cfg.Seeds != "" {
		n.member, err = newMember(n)
	} else {
		n.dir, err = openDataDir(n.fs, filepath.ToSlash(n.cfg.DataPath), n.cfg.DataShards)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.dir.lock.Close())
		}
	}()
	n.buildAdmin()
	if n.member != nil {
		return nil
	}
	if err := n.open(); err != nil {
		return err
	}
	return n.buildFronts()
}

func (n *Node) listen() error {
	for _, l := range []struct {
		flag, addr string
		to         *net.Listener
	}{
		{"tcp-address", n.cfg.TCPAddress, &n.fronts.tcp},
		{"http-address", n.cfg.HTTPAddress, &n.fronts.http},
		{"https-address", n.cfg.HTTPSAddress, &n.fronts.https},
		{"admin-address", n.cfg.AdminAddress, &n.fronts.admin},
		{"cluster-address", n.cfg.ClusterAddress, &n.fronts.cluster},
		{"lookup-tcp-address", n.cfg.LookupTCPAddress, &n.fronts.lookupTCP},
		{"lookup-http-address", n.cfg.LookupHTTPAddress, &n.fronts.lookupHTTP},
		{"nsqadmin-http-address", n.cfg.NSQAdminHTTPAddress, &n.fronts.nsqadmin},
	} {
		if l.addr == "" || l.to == &n.fronts.cluster && n.cfg.Seeds == "" || l.to == &n.fronts.https && n.secure.tls == nil {
			continue
		}
		var err error
		if *l.to, err = listen(l.addr); err != nil && n.spare(l.to, l.addr) {
			n.log.Warn("this node does without a listener: the address is in use, perhaps by another node; choose one with --"+l.flag, "address", l.addr)
			*l.to = nil
			continue
		}
		if err != nil {
			n.fronts.close()
			return fmt.Errorf("listen on %s: %w; choose another address with --%s", l.addr, err, l.flag)
		}
	}
	return nil
}

// spare reports whether the node can do without a listener: a lookup, or
// nsqadmin's API, where nobody has asked for one. So several nodes of a machine
// need not name theirs.
func (n *Node) spare(to *net.Listener, addr string) bool {
	d := config.Default()
	return to == &n.fronts.lookupTCP && addr == d.LookupTCPAddress || to == &n.fronts.lookupHTTP && addr == d.LookupHTTPAddress ||
		to == &n.fronts.nsqadmin && addr == d.NSQAdminHTTPAddress
}

// Addrs says where the node listens.
func (n *Node) Addrs() Addrs {
	a := Addrs{TCP: n.fronts.tcp.Addr().String(), HTTP: n.fronts.http.Addr().String()}
	if n.fronts.https != nil {
		a.HTTPS = n.fronts.https.Addr().String()
	}
	if n.fronts.admin != nil {
		a.Admin = n.fronts.admin.Addr().String()
	}
	n.lookupAddrs(&a)
	if l := n.fronts.nsqadmin; l != nil {
		a.NSQAdmin = l.Addr().String()
	}
	return a
}

// open builds the engine and the domain on the data folder.
func (n *Node) open() (err error) {
	started := time.Now()
	switch {
	case n.dir.DataShards < n.cfg.DataShards:
		n.log.Warn("the data folder keeps its number of shards; `tidings cluster shards add` adds more", "data_shards", n.dir.DataShards, "asked", n.cfg.DataShards)
	case n.dir.DataShards > n.cfg.DataShards: // some were added, perhaps
		n.log.Info("the data folder keeps its number of shards", "data_shards", n.dir.DataShards, "asked", n.cfg.DataShards)
	}
	segment := n.segmentSize()
	if n.wal == nil {
		if err := n.openLog(); err != nil {
			return err
		}
	}
	if err := n.dir.begun(n.fs); err != nil {
		return err
	}
	so := seglog.Options{SegmentSize: int64(n.cfg.SegmentSize), TailBytes: int64(n.cfg.TailSize), Logger: n.log}
	if n.member != nil {
		so.Mend = n.member.mender.Mend
	}
	n.store, err = seglog.Open(n.fs, path.Join(n.dir.path, "topics"), so)
	if err != nil {
		return fmt.Errorf("open topics: %w", err)
	}
	n.reserve = &reserve{
		fs: n.fs, dir: n.dir.path, segment: segment, fixed: int64(n.cfg.DiskReserve), log: n.log, pressure: n.relieve,
	}
	n.reserve.look()
	if err := n.openGroups(); err != nil {
		return err
	}
	n.log.Debug("recovered", "data_path", n.cfg.DataPath, "took", time.Since(started))
	return nil
}

// openLog opens the write-ahead log.
func (n *Node) openLog() (err error) {
	n.wal, err = wal.Open(n.fs, path.Join(n.dir.path, "wal"), wal.Options{SegmentSize: n.segmentSize(), Logger: n.log})
	if damaged, ok := errors.AsType[*wal.CorruptError](err); ok {
		return fmt.Errorf("%w; `tidings log repair --data-path %s` shows what would be lost by going on", damaged, n.cfg.DataPath)
	}
	if err != nil {
		return fmt.Errorf("open write-ahead log: %w", err)
	}
	return nil
}

// segmentSize is the WAL's segment size.
func (n *Node) segmentSize() int64 {
	u, err := n.fs.Usage(n.dir.path)
	if err != nil {
		u.Total = 0 // the configured one then
	}
	return segmentBytes(&n.cfg, u.Total)
}

// segmentBytes is the WAL's segment size on a volume of so many bytes: as
// configured, but at most a thirty-second of the volume, so that the reserve
// leaves room on small ones. 0: the volume's size is not known.
func segmentBytes(c *config.Config, total int64) int64 {
	size := int64(c.WALSegmentSize)
	if total > 0 {
		size = min(size, max(total/32, 1<<20))
	}
	return size
}

// openGroups opens the metadata group and the data shards on the WAL.
func (n *Node) openGroups() error {
	metaGroup := &late{}
	o := meta.Options{
		Node: n.self(), Wake: metaGroup.wake, Shards: n.dir.DataShards, Partitions: n.cfg.DefaultPartitions, Grow: n.growShards,
	}
	if n.member != nil {
		o.Founding, o.Forward = n.dir.founding(), n.member.forward
	}
	m, err := meta.New(o)
	if err != nil {
		return fmt.Errorf("make metadata: %w", err)
	}
	n.meta = m
	if n.member != nil {
		if err := n.member.open(m); err != nil {
			return err
		}
	}
	if err := n.openGroup(meta.GroupID, m, metaGroup, nil); err != nil {
		return err
	}
	for id := uint32(1); id <= uint32(n.dir.DataShards); id++ {
		if err := n.openShard(id, nil); err != nil {
			return err
		}
	}
	n.flusher = shard.NewFlusher(shard.FlusherOptions{
		Store: n.store, WAL: n.wal, Groups: n.groups.All(), Logger: n.log, CheckpointBytes: n.checkpointBytes(),
		TailLimit: 4 * int64(n.cfg.TailSize),
		// the store knows every log that a shard has restored or opened
		Sweep: func() error { return n.store.Sweep(func(seglog.LogID) bool { return false }) },
	})
	bo := broker.Options{
		Meta: m, Machines: n.machines.All(), MaxConsumers: n.cfg.MaxChannelConsumers, MemQueueSize: n.cfg.MemQueueSize,
		WaitOnDisconnect: !n.cfg.RequeueOnDisconnect, MaxRequeueDelay: n.cfg.MaxReqTimeout, LatencyWindow: n.latencyWindow(),
		Health: n.health, Logger: n.log, Prepare: n.prepareChannels, Changed: n.namesChanged,
	}
	if n.member != nil {
		bo.Peers, bo.Boot = peers{n.member}, n.member.self.Boot
		bo.Ack, _ = meta.ParseAck(n.cfg.Ack) // Validate has looked
		n.spool = newLocalSpool(n)
		bo.Local = n.spool
	}
	n.broker = broker.New(bo)
	for id, g := range n.groups.All() {
		n.loops.add(fmt.Sprintf("shard %d", id), g.Run)
	}
	return n.growShards(m.View().Shards)
}

// leads tells the broker that this node begins to lead a shard, or ends.
func (n *Node) leads(id uint32, leads bool) {
	if n.member != nil {
		n.broker.Leads(id, leads)
	}
}

// late is a group that a machine can wake before the group is there.
type late struct{ g *shard.Group }

func (l *late) wake() {
	if l.g != nil {
		l.g.Wake()
	}
}

func (l *late) drive() {
	if l.g != nil {
		l.g.Drive()
	}
}

func (n *Node) wakeFlusher() {
	if n.flusher != nil {
		n.flusher.Wake()
	}
}

func (n *Node) shardDir(id uint32) string {
	return path.Join(n.dir.path, "shards", strconv.FormatUint(uint64(id), 10))
}

// checkpointBytes is how much log there is between two checkpoints of a group.
func (n *Node) checkpointBytes() int64 { return min(int64(n.cfg.CheckpointSize), 4*n.segmentSize()) }

// openGroup opens a group, which does not run yet. began are the voters with which the
// group of a shard begins that was added to the cluster.
func (n *Node) openGroup(id uint32, m shard.Machine, l *late, began []uint64) error {
	o := shard.Options{
		ID: id, RaftID: n.dir.RaftID, Dir: n.shardDir(id), FS: n.fs, WAL: n.wal, Machine: m,
		Async: !n.cfg.SyncStorage, Logger: n.log,
		CheckpointBytes: n.checkpointBytes(), CheckpointAge: n.cfg.CheckpointAge,
	}
	if n.member != nil {
		if err := n.member.groupOptions(&o, began); err != nil {
			return err
		}
	}
	g, err := shard.Open(o)
	if err != nil {
		return fmt.Errorf("open shard %d: %w", id, err)
	}
	l.g = g
	n.groups.Add(g)
	return nil
}

// relieve asks every shard for a checkpoint: files are deleted and the WAL is
// released only behind checkpoints.
func (n *Node) relieve() {
	for _, g := range n.groups.All() {
		g.RequestCheckpoint()
	}
}

// health is nil while the node takes publishes.
func (n *Node) health() error {
	if n.reserve.Reached() {
		return fmt.Errorf("disk reserve reached: %d bytes free", n.reserve.free.Load())
	}
	return nil
}

// self is this node as others reach it.
func (n *Node) self() meta.Node {
	if n.member != nil {
		return n.member.self
	}
	return meta.Node{ID: n.dir.RaftID, Name: n.name()}
}

func (n *Node) name() string {
	if n.cfg.Node != "" {
		return n.cfg.Node
	}
	host, err := os.Hostname()
	if err != nil {
		return n.dir.NodeID
	}
	return host
}

// Run serves until ctx ends or something that can't be lived without fails, and
// stops in order: fronts, deliveries, leaderships, groups with the flusher, the
// WAL, files, links. A node of a cluster first waits until it belongs to one.
// ready is called when the node serves.
func (n *Node) Run(ctx context.Context, ready func()) error {
	always, stopAlways := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAlways()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var runs errgroup.Group
	start := func(run func(context.Context) error) {
		runs.Go(func() error {
			err := run(always)
			if err != nil {
				fail(err)
			}
			return err
		})
	}
	if n.fronts.admin != nil {
		start(n.admin.Run)
	}
	if n.member == nil {
		err := n.run(ctx, ready)
		stopAlways()
		return firstCause(errors.Join(err, runs.Wait()))
	}
	start(n.member.transport.Run)
	err := n.begin(ctx)
	if err == nil {
		err = n.run(ctx, ready)
	} else {
		l := n.fronts
		listeners{tcp: l.tcp, http: l.http, https: l.https, lookupTCP: l.lookupTCP, lookupHTTP: l.lookupHTTP, nsqadmin: l.nsqadmin}.close()
		err = errors.Join(err, n.dir.lock.Close())
		if errors.Is(err, context.Canceled) && errors.Is(context.Cause(ctx), context.Canceled) {
			err = nil // it was stopped before it belonged to a cluster
		}
	}
	stopAlways()
	return firstCause(errors.Join(err, runs.Wait()))
}

// begin makes the node part of its cluster, and opens the engine.
func (n *Node) begin(ctx context.Context) error {
	if err := n.member.form(ctx); err != nil {
		return err
	}
	moved, err := n.dir.dropStale(n.fs)
	if err != nil {
		return err
	}
	if len(moved) > 0 {
		n.log.Warn("the log of before was moved aside; delete it when all is well", "files", moved)
	}
	if err := n.open(); err != nil {
		return err
	}
	if err := n.buildFronts(); err != nil {
		return errors.Join(err, n.wal.Close(), n.store.Close())
	}
	n.member.begin()
	return nil
}

// run runs the engine and serves.
func (n *Node) run(ctx context.Context, ready func()) error {
	background := context.WithoutCancel(ctx)
	log, stopLog := context.WithCancel(background)
	defer stopLog()
	engine, stopEngine := context.WithCancelCause(background)
	defer stopEngine(nil)
	start := func(eg *errgroup.Group, ctx context.Context, name string, run func(context.Context) error) {
		eg.Go(func() error {
			err := run(ctx)
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
				stopEngine(err)
			}
			return err
		})
	}
	var logRuns, engineRuns errgroup.Group
	start(&logRuns, log, "write-ahead log", n.wal.Run)
	start(&engineRuns, engine, "flusher", n.flusher.Run)
	start(&engineRuns, engine, "disk reserve", n.reserve.Run)
	n.loops.begin(func(name string, run func(context.Context) error) { start(&engineRuns, engine, name, run) })
	moves, stopMoves := context.WithCancel(engine)
	defer stopMoves()
	var moveRuns errgroup.Group
	if n.member != nil {
		start(&moveRuns, moves, "cluster", n.member.run)
		start(&moveRuns, moves, "spool", n.spool.Run)
	} else {
		start(&moveRuns, moves, "broker", n.broker.Run)
	}
	err := n.serve(ctx, engine, ready)
	stopMoves()
	err = errors.Join(moveRuns.Wait(), err)
	if n.member != nil && engine.Err() == nil {
		n.member.handOver(engine)
	}
	stopEngine(nil)
	err = errors.Join(engineRuns.Wait(), err)
	n.meta.Close(fault.Exiting) // answers who still waits
	for _, m := range n.machines.All() {
		m.Close(fault.Exiting)
	}
	stopLog()
	return errors.Join(logRuns.Wait(), err, n.close())
}

// firstCause keeps the text of a joined error short: what broke first says it
// all, the rest is its echo.
func firstCause(err error) error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return firstCause(joined.Unwrap()[0])
	}
	return err
}

// serve runs the fronts while ctx and the engine live. This is the order of a
// stop: the other members are told, the fronts stop accepting, deliveries end,
// what consumers answered is committed; then Run stops the groups, the WAL and
// the files.
func (n *Node) serve(ctx, engine context.Context, ready func()) error {
	if err := n.recover(ctx, engine); err != nil {
		if ctx.Err() != nil && engine.Err() == nil {
			return nil // stopped before it served
		}
		return errors.Join(err, context.Cause(engine))
	}
	n.caughtUp.Store(true)
	fronts, stopFronts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFronts()
	defer context.AfterFunc(engine, stopFronts)()
	defer context.AfterFunc(ctx, func() {
		if n.member != nil {
			n.member.presence.leave(fronts)
		}
		stopFronts()
	})()
	var eg errgroup.Group
	for _, run := range n.frontRuns() {
		eg.Go(func() error {
			defer stopFronts()
			return run(fronts)
		})
	}
	eg.Go(func() error { // consumers are told before their connections close
		<-fronts.Done()
		n.broker.Exit()
		return nil
	})
	a := n.Addrs()
	n.log.Info("listening", "tcp", a.TCP, "http", a.HTTP, "https", a.HTTPS, "admin", a.Admin,
		"lookup_tcp", a.LookupTCP, "lookup_http", a.LookupHTTP, "nsqadmin", a.NSQAdmin, "data_path", n.cfg.DataPath)
	ready()
	err := eg.Wait()
	settle, cancel := context.WithTimeout(engine, settleTimeout)
	defer cancel()
	if engine.Err() == nil {
		unsettled := n.broker.Settle(settle)
		if unsettled != nil && n.member != nil && fault.CodeOf(unsettled) == fault.Timeout {
			// No majority is there to commit it: what was answered last is delivered again.
			n.log.Warn("the last answers of consumers were not committed", "error", unsettled)
			unsettled = nil
		}
		err = errors.Join(err, unsettled)
	}
	return err
}

// recover waits until the fronts can serve.
func (n *Node) recover(ctx, engine context.Context) error {
	if n.member != nil {
		return n.member.settled(ctx, engine)
	}
	for _, g := range n.groups.All() {
		if err := g.LeadReady(engine); err != nil {
			return err
		}
	}
	if err := n.announce(engine); err != nil {
		return err
	}
	return n.broker.Recover(engine)
}

// announce waits until metadata knows this process. Before that it still has the
// ephemeral topics of the one before.
func (n *Node) announce(ctx context.Context) error {
	if n.meta.View().Feature < 2 { // written by an older version: it goes on as it was
		return nil
	}
	done := make(chan error, 1)
	n.meta.UpdateNode(n.meta.Node(), func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil && !n.meta.View().Announced(n.meta.Node()) { // the leader says so itself, and may be first
			return fmt.Errorf("tell metadata of this process: %w", err)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settleTimeout bounds how long a stop waits for the last answers to commit.
const settleTimeout = time.Second

// close gives the data folder back.
func (n *Node) close() error {
	err := errors.Join(n.wal.Close(), n.store.Close(), n.dir.lock.Close())
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}
