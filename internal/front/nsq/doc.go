// Package nsq is the NSQ front: the TCP protocol V2 and nsqd's HTTP API. It
// holds sockets and nothing else; messages, topics and channels are the
// broker's.
//
// A TCP connection is two goroutines.
//
//	reader   takes all that is in its read buffer, command by command. Publishes
//	         of one topic that stand there together become one call of the
//	         broker; FIN, REQ and TOUCH one call of the subscription. It waits
//	         for nobody but the client, room (see budget and replies) and the
//	         opening of a subscription.
//	writer   sleeps on a bell. It writes the answers that are ready, in the
//	         order of their commands, then messages as far as the window is
//	         open, and flushes when there is nothing more to write.
//
// Bytes of a message are copied once on their way in, from the read buffer into
// the publish that owns them until the broker has answered; and once on their
// way out, from the shared batch into the write buffer, unless they are larger
// than that.
//
// Everything is bounded: a line (lineBytesMax), a read buffer (inputBytesMax),
// what a connection may have outstanding (repliesMax, replyBytesMax), what all
// of them may hold together (Options.MaxBufferedBytes), what is taken for a
// consumer at once (takeMax, takeBytesMax).
package nsq
