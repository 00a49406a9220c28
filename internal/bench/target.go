package bench

import "context"

// Target is a running server. Its methods may be called from many goroutines.
type Target interface {
	// Prepare makes a topic with these channels. Every channel gets every
	// message that is published afterwards.
	Prepare(ctx context.Context, topic string, channels []string) error
	// Publisher connects a publisher to a topic.
	Publisher(ctx context.Context, topic string) (Publisher, error)
	// Consumer connects one more consumer to a channel. A channel that was not
	// prepared gets what waits in a topic without channels. window bounds the
	// unfinished messages; 0 is as many as the server allows.
	Consumer(ctx context.Context, topic, channel string, window int) (Consumer, error)
	// Drop removes the topic with all it holds.
	Drop(ctx context.Context, topic string) error
}

// Publisher is one connection that publishes. Send and Flush are for one
// goroutine, Await for one that may be another. Errors are final.
type Publisher interface {
	// Send queues one command that publishes the bodies; they are copied.
	Send(bodies [][]byte) error
	// Flush writes what is queued.
	Flush() error
	// Await waits for the answer to the oldest command not yet awaited.
	Await() error
	Close() error
}

// Message is a delivery. It is valid until the next Receive.
type Message struct {
	Body []byte
	Ref  []byte // what the server needs to finish it
}

// Consumer is one connection that consumes. Receive and Finish are for one
// goroutine; Close, from any, ends a waiting Receive.
type Consumer interface {
	// Receive waits for deliveries, and appends those that are there to dst.
	Receive(dst []Message) ([]Message, error)
	// Finish acknowledges deliveries of the last Receive, each of them.
	Finish(ms []Message) error
	Close() error
}

// pausable is a consumer that can be told to get no more for now; NSQ's can.
type pausable interface {
	// SetWindow changes the bound of unfinished messages; 0 stops deliveries.
	SetWindow(n int) error
}

// wanderer is a publisher that can go over to another topic; NSQ's can.
type wanderer interface {
	// SetTopic changes the topic of what is sent from now on.
	SetTopic(topic string)
}

// deferrer is a publisher that can publish for later; NSQ's can.
type deferrer interface {
	// SendLater queues a message that is to be delivered in delayMs.
	SendLater(body []byte, delayMs int64) error
}

// wide is a target of several servers.
type wide interface {
	// everywhere is how many consumers it takes, connected one after the other, to
	// have one at each server.
	everywhere() int
}

// counter is a target that keeps nothing which could be read back, but counts.
type counter interface {
	// Received is how many messages the server has taken in since its start.
	Received(ctx context.Context) (int64, error)
}
