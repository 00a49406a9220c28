package wal

import (
	"fmt"
	"strings"
)

// Lost is a range of entries of one shard, both ends included.
type Lost struct {
	Shard       uint32
	First, Last uint64
}

// CorruptError says that something is damaged that had been declared durable.
// Nothing behind the place is used.
type CorruptError struct {
	Segment string // file name
	Offset  int64  // bytes into it
	Reason  string
	Lost    []Lost // what a repair would lose, as far as it can be told; by shard

	sequence uint64 // of the segment
	keep     int64  // bytes of the segment that are whole groups; 0: none, not even the header
}

// Error names the place, the reason and what would be lost.
func (e *CorruptError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "log segment %s is damaged at offset %d: %s", e.Segment, e.Offset, e.Reason)
	for i, l := range e.Lost {
		sep := ", "
		if i == 0 {
			sep = "; behind it stand "
		}
		fmt.Fprintf(&b, "%sentries %d to %d of shard %d", sep, l.First, l.Last, l.Shard)
	}
	return b.String()
}

// Cut is the torn last write that recovery cuts.
type Cut struct {
	Segment string // file name
	Offset  int64  // where the log ends now
	Size    int64  // bytes cut
}
