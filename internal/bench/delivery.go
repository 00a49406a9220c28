package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// deliveryTurns are the turns of cluster-delivery, by where the consumers are: first
// one of each unmeasured, since a server's first minute is not its usual one, then
// two of each in an order in which neither gains from coming late.
var deliveryTurns = []bool{false, true, false, true, true, false} // true: not at the leader

// deliverySpares is how many turns may be lost because the leader moved meanwhile.
const deliverySpares = 4

// delivery measures what it costs that a consumer is connected to another node than
// the one that leads: the same backlog on several channels, drained by consumers at
// the leader and elsewhere in turn. The rate, and the CPU of all nodes together, are
// those of consumers elsewhere.
func (m *measurement) delivery(ctx context.Context) error {
	all, ok := m.Target.(*nodes)
	if !ok {
		return errNeedsCluster
	}
	channels := make([]string, len(deliveryTurns)+deliverySpares)
	for i := range channels {
		channels[i] = fmt.Sprintf("drain%d", i)
	}
	if err := m.Target.Prepare(ctx, m.topic, channels); err != nil {
		return err
	}
	defer m.drop(ctx, m.topic)
	counts, err := m.backlog(ctx, "fill")
	if err != nil {
		return err
	}
	var at, away spent
	turn := 0
	for _, channel := range channels {
		if turn == len(deliveryTurns) {
			break
		}
		got, stayed, err := m.drainAt(ctx, all, channel, newLedger(counts), deliveryTurns[turn])
		if err != nil {
			return err
		}
		if !stayed {
			continue
		}
		switch turn++; {
		case turn <= 2:
		case deliveryTurns[turn-1]:
			away.add(got)
		default:
			at.add(got)
		}
	}
	if turn < len(deliveryTurns) {
		return errors.New("the leader moves again and again")
	}
	m.row.RSS, m.row.PeakRSS = m.Processes.rss()
	m.compareDelivery(at, away)
	return nil
}

// compareDelivery books what consumers elsewhere took, and how it compares with those
// at the leader.
func (m *measurement) compareDelivery(at, away spent) {
	m.row.Messages, m.row.Seconds, m.row.Rate = away.messages, away.draining.Seconds(), away.drainRate()
	m.row.figure("leader_rate", at.drainRate())
	m.row.figure("rate_ratio", away.drainRate()/at.drainRate())
	if at.cpu > 0 && away.cpu > 0 {
		m.row.CPUMicros, m.row.Cores = away.cpuMicros(), away.cpu.Seconds()/away.draining.Seconds()
		m.row.figure("leader_cpu_us", at.cpuMicros())
		m.row.figure("cpu_ratio", away.cpuMicros()/at.cpuMicros())
	}
}

// drainAt consumes a channel by consumers that are all connected to one node: the
// topic's leader, or, with elsewhere, the next one. stayed: it led all the time.
func (m *measurement) drainAt(ctx context.Context, all *nodes, channel string, l *ledger, elsewhere bool) (s spent, stayed bool, err error) {
	if err := m.rest(ctx); err != nil {
		return s, false, err
	}
	leader, err := m.Cluster.Leader(ctx, m.topic)
	if err != nil {
		return s, false, err
	}
	node, label := all.each[leader], "drain at the leader"
	if elsewhere {
		node, label = all.each[(leader+1)%len(all.each)], "drain elsewhere"
	}
	m.Progress.begin(label, l.total)
	in := newIntake(m.Progress)
	defer in.close()
	in.add(l)
	began, cpu := time.Now(), m.Processes.cpu()
	for range m.Workload.Consumers {
		if err := in.join(ctx, node, m.topic, channel, l, m.Workload.Window, nil); err != nil {
			return s, false, err
		}
	}
	if err := in.wait(ctx, m.Workload.Patience); err != nil {
		return s, false, err
	}
	s = spent{messages: in.delivered(), draining: in.ended().Sub(began), cpu: m.Processes.cpu() - cpu}
	m.row.Verdict = m.row.add(in.verdict())
	now, err := m.Cluster.Leader(ctx, m.topic)
	return s, err == nil && now == leader, err
}
