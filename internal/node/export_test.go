package node

import "github.com/tidings-io/tidings/internal/meta"

// MakeTopic asks metadata for a topic.
func (n *Node) MakeTopic(name string, done func(error)) {
	n.meta.CreateTopic(name, func(_ *meta.Topic, err error) { done(err) })
}
