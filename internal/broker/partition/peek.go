package partition

import "github.com/tidings-io/tidings/internal/broker/parked"

// Position says where a channel stands on a partition, as its lane is told;
// false when the shard does not know the channel.
func (v *View) Position(k Key, channel uint64) (Start, bool) {
	p := v.m.partitions[k]
	if p == nil {
		return Start{}, false
	}
	c := p.channel(channel)
	if c == nil {
		return Start{}, false
	}
	return p.startOf(c), true
}

// Parked returns up to n parked messages of a channel that no lane has been
// given, earliest due first. It may read a chunk of each file of them.
func (v *View) Parked(k Key, channel uint64, n int) (list []parked.Entry, err error) {
	p := v.m.partitions[k]
	if p == nil {
		return nil, nil
	}
	c := p.channel(channel)
	if c == nil || c.parked == nil {
		return nil, nil
	}
	err = c.parked.First(n, func(e parked.Entry) bool {
		list = append(list, e)
		return true
	})
	return list, err
}
