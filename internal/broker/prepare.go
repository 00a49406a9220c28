package broker

import (
	"context"
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/meta"
)

// prepare asks whoever knows which channels a new topic is to have, and makes
// them before anything is published to it. t is the topic's handle; then is
// called once, whatever came of it.
func (b *Broker) prepare(m *meta.Topic, then func(t *Topic)) {
	b.o.Prepare(m.Name, func(channels []string) {
		t := b.newTopic(m)
		if len(channels) == 0 {
			then(t)
			return
		}
		go func() { // an answer may come on a goroutine that must not wait
			t.prepare(channels)
			then(t)
		}()
	})
}

// youth is how long after its making a topic may still lack channels that the
// node which makes it has been told of: longer than its question and their making
// take together.
const youth = 30 * time.Second

// young reports whether another node may just be making the topic's channels. A
// message that this node took before they are there would miss all but the first
// of them, so this node asks for them too.
func (b *Broker) young(m *meta.Topic) bool {
	return b.o.Peers != nil && b.o.Prepare != nil && !m.Ephemeral() && b.o.Clock()-m.CreatedNs < int64(youth)
}

// prepareTimeout bounds how long the first publish to a topic waits for the
// making of its channels.
const prepareTimeout = 10 * time.Second

// prepare makes channels; a failure is told in the log only, because the topic
// works without them.
func (t *Topic) prepare(channels []string) {
	ctx, cancel := context.WithTimeout(context.Background(), prepareTimeout)
	defer cancel()
	slices.Sort(channels)
	for _, name := range slices.Compact(channels) {
		if !ValidChannel(name) || IsEphemeral(name) { // nobody would end it without a consumer
			continue
		}
		var err error
		if t.mem != nil {
			_, err = t.ensureChannel(ctx, name)
		} else {
			err = t.createChannel(ctx, name)
		}
		if err != nil {
			t.b.o.Logger.Warn("make the channels of a new topic", "topic", t.name, "channel", name, "error", err)
		}
	}
}
