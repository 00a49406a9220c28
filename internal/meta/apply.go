package meta

import (
	"fmt"

	"github.com/tidings-io/tidings/internal/fault"
)

// result is what a command made, found or refused.
type result struct {
	topic   *Topic
	channel *Channel
	err     error
	index   uint64 // of the entry; set at its end
}

// apply makes one command fact: a function of the view and the command alone.
func (c *change) apply(cmd *command, index uint64, now int64) result {
	switch cmd.Kind {
	case kindForm:
		return c.form(cmd)
	case kindFound:
		return c.found(cmd)
	case kindCreateTopic:
		return c.createTopic(cmd, index, now)
	case kindExpireBoot:
		c.expireBoot(cmd.Boot)
		return result{}
	case kindReplaceNode, kindUpdateNode, kindDropBoot, kindAddShards, kindRequest:
		return c.applyLevel2(cmd, index, now)
	}
	t, ok := c.view.TopicID(cmd.Topic)
	switch {
	case !ok && (cmd.Kind == kindRemoveTopic || cmd.Kind == kindRemoveChannel):
		return result{} // gone already
	case !ok:
		return result{err: fault.TopicNotFound}
	}
	switch cmd.Kind {
	case kindCreateChannel:
		return c.createChannel(t, cmd, now)
	case kindDeleteTopic:
		next := *t
		next.Deleting = true
		c.put(&next)
		return result{topic: &next}
	case kindRemoveTopic:
		c.remove(t)
		return result{topic: t}
	case kindPauseTopic:
		next := *t
		next.Paused = cmd.On
		c.put(&next)
		return result{topic: &next}
	case kindSetAck:
		next := *t
		next.Ack = Ack(cmd.Count)
		c.put(&next)
		return result{topic: &next}
	case kindRaiseTopic:
		return c.raiseTopic(t, int(cmd.Count))
	case kindActivateTopic:
		return c.activateTopic(t, int(cmd.Count))
	}
	return c.applyToChannel(t, cmd)
}

func (c *change) form(cmd *command) result {
	if c.view.Formed() {
		return result{}
	}
	c.touched = true
	c.view.Cluster, c.view.Feature = cmd.Name, uint32(cmd.Feature)
	c.view.setNodes([]Node{cmd.Node}, nil)
	c.view.Shards, c.shards = make([]Shard, cmd.Count), true
	for i := range c.view.Shards {
		c.view.Shards[i].ID = uint32(i) + 1
	}
	c.view.alone()
	return result{}
}

// alone makes the only node the voter of every group, as a cluster of level 1
// is and does not say.
func (v *View) alone() {
	if len(v.Nodes) != 1 {
		return
	}
	voters := []uint64{v.Nodes[0].ID}
	v.Meta.Voters = voters
	for i := range v.Shards {
		v.Shards[i].Voters = voters
	}
}

func (c *change) createTopic(cmd *command, index uint64, now int64) result {
	if t, ok := c.view.Topic(cmd.Name); ok {
		if t.Deleting {
			return result{topic: t, err: fault.New(fault.Deleting, "create topic %s: it is being deleted", cmd.Name)}
		}
		return result{topic: t}
	}
	if !c.view.Formed() {
		return result{err: fault.New(fault.NotLeader, "create topic %s: the cluster is not formed", cmd.Name)}
	}
	if cmd.Boot != 0 && c.view.Feature >= 2 && !c.view.booted(cmd.Boot) {
		return result{err: fault.New(fault.NotLeader, "create topic %s: the cluster does not know its home's process yet", cmd.Name)}
	}
	t := &Topic{
		ID: c.id(), Name: cmd.Name, Seed: cmd.Seed, Created: index, CreatedNs: now, Boot: cmd.Boot,
	}
	if cmd.Boot == 0 {
		t.Partitions = c.assign(int(cmd.Count))
		t.Active = len(t.Partitions)
	}
	c.put(t)
	return result{topic: t}
}

func (c *change) createChannel(t *Topic, cmd *command, now int64) result {
	if t.Deleting {
		return result{topic: t, err: fault.New(fault.Deleting, "create channel %s: topic %s is being deleted", cmd.Name, t.Name)}
	}
	if ch, ok := t.Channel(cmd.Name); ok {
		if ch.Deleting {
			return result{topic: t, channel: ch, err: fault.New(fault.Deleting, "create channel %s: it is being deleted", cmd.Name)}
		}
		return result{topic: t, channel: ch}
	}
	ch := &Channel{ID: c.id(), Name: cmd.Name, CreatedNs: now}
	next := t.with(ch)
	c.put(next)
	return result{topic: next, channel: ch}
}

func (c *change) applyToChannel(t *Topic, cmd *command) result {
	ch, ok := t.ChannelID(cmd.Channel)
	if !ok {
		if cmd.Kind == kindRemoveChannel {
			return result{topic: t} // gone already
		}
		return result{topic: t, err: fault.ChannelNotFound}
	}
	if cmd.Kind == kindRemoveChannel {
		next := t.without(ch)
		c.put(next)
		return result{topic: next, channel: ch}
	}
	changed := *ch
	switch cmd.Kind {
	case kindPauseChannel:
		changed.Paused = cmd.On
	case kindSetDeadLetter:
		changed.MaxAttempts, changed.DeadLetter = uint16(cmd.Count), cmd.Name
	default:
		changed.Deleting = true
	}
	next := t.with(&changed)
	c.put(next)
	return result{topic: next, channel: &changed}
}

// expireBoot removes the ephemeral topics of all processes but the one named.
func (c *change) expireBoot(boot uint64) {
	for _, t := range c.view.orphans(boot) {
		c.remove(t)
	}
}

// applyEntry makes an entry fact. The results stand in the order of the
// commands; they are nil for an entry of another term than it was built in.
func (v *View) applyEntry(index, term uint64, data []byte) (*View, []result, error) {
	r := reader{b: data}
	h, err := r.head()
	if err != nil {
		return v, nil, err
	}
	if h.Term != term || h.Count > uint64(len(r.b)) {
		if h.Term == term {
			err = fmt.Errorf("read head: %d commands: %w", h.Count, ErrEntry)
		}
		return v, nil, err
	}
	c := begin(v)
	now := max(h.Time, v.lastNs)
	results := make([]result, 0, h.Count)
	for range h.Count {
		cmd, err := r.command()
		if err != nil {
			return v, nil, err
		}
		res := c.apply(&cmd, index, now)
		res.index = index
		results = append(results, res)
	}
	if len(r.b) > 0 {
		return v, nil, fmt.Errorf("read commands: %d bytes too many: %w", len(r.b), ErrEntry)
	}
	if !c.touched {
		return v, results, nil
	}
	c.view.Index, c.view.lastNs = index, now
	return c.view, results, nil
}
