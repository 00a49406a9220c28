// Package origin is a process towards one shard: the publishes that it wants
// there, in order, with the numbers under which the shard's leader takes each of
// them once, whoever leads and however often they are sent.
//
// An Origin is a step machine: no goroutine, clock, lock or socket is inside.
// Whoever owns it says who leads (Lead), sends what Next and NextLocal give, says
// what came back, and tells the publishers what Outcomes returns.
//
// # Numbers
//
// A publish has a number, counted from 1 in each epoch, and keeps it as long as
// any copy of it may be under way. The queue holds the publishes with consecutive
// numbers; what is answered goes out at its front.
//
//   - Done: it is in the log, once, though it may have been sent five times.
//   - Not used: that copy was not done and never will be. When this is so of all
//     copies of a publish, and of all that stand behind it, its number may be
//     given to another one.
//   - Unknown: a copy may be in some leader's log. The publish is sent again under
//     its number until it is answered, or given up: then its publisher is told
//     that the outcome is unknown, and the epoch rises, so that a copy that comes
//     late is refused.
//
// A publish of which its partition says that the topic has more partitions by now
// (fault.Moved) is not done, and its number is used. It is given back to who added
// it, behind the outcomes of all that were added before, so that those of one key stay
// in order.
//
// # Runs
//
// A run is one pass over the queue towards one leader. It ends when the leader
// changes, or when something came back that was not done; the next one begins
// with the oldest publish that has no answer. Answers of an earlier run count as
// far as they are certain.
//
// # On a wire
//
// Integers are uvarints unless said otherwise, strings and bytes a length and
// the bytes. A request:
//
//	format    2; 1 where every mapping is what the key of the first message tells by
//	          itself: 1 with one, 0 without
//	shard, producer, epoch, number of the first publish
//	count of topics: id, name
//	count of publishes, each:
//	  place in the list of topics, partition, flags (1 the oldest without an answer,
//	  2 acknowledged by the leader alone, 4 with a mapping; 4 from format 2 on), mapping,
//	  count of messages, each:
//	    flags (one byte: 1 key, 2 id, 4 due time), body, key, id, due time (unix ns)
//
// A reply:
//
//	format    1
//	count of answers, in the order of the publishes, each:
//	  fate (one byte), and for Done: base + 1; else: name of the fault's code, text
package origin
