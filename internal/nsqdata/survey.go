package nsqdata

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"slices"
)

// Survey is what a topic holds. It keeps 16 bytes for each message of each queue.
type Survey struct {
	Topic *Topic
	// Session names the contents: another survey of the same folder has the same,
	// one of a folder with other messages has another.
	Session [16]byte
	Waiting Count   // in the topic's own queue
	Each    []Count // by channel
	Notes   []Note  // what could not be read

	// Messages that channels have yet to get, and that wait in the topic, each once.
	Handed, Topical int64
	Largest         int // bytes of the largest body

	index  []entry // sorted
	forgot bool
}

// Entries is how many entries of 16 bytes the survey keeps.
func (s *Survey) Entries() int { return len(s.index) }

// Forget lets go of the entries: the survey has no batches any more.
func (s *Survey) Forget() { s.index, s.forgot = nil, true }

// Forgot reports whether Forget was called.
func (s *Survey) Forgot() bool { return s.forgot }

// Count is what a queue holds.
type Count struct{ Messages, Bytes int64 }

// entry is one message of one queue.
type entry struct {
	id       uint64 // nsqd's
	sum      uint32 // of all but attempts: ids come again when a clock was set back
	queue    uint16 // place of the channel
	attempts uint16
}

// inTopic is the queue of the topic itself.
const inTopic = 1<<16 - 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (e *entry) compare(o entry) int {
	if c := cmp.Compare(e.id, o.id); c != 0 {
		return c
	}
	return cmp.Compare(e.sum, o.sum)
}

// entryOf is the entry of a record, but for the queue.
func entryOf(r *Record) entry {
	e := entry{attempts: r.Attempts}
	var id [8]byte
	if _, err := hex.Decode(id[:], r.ID[:]); err != nil { // none of nsqd's: sum tells
		copy(id[:], r.ID[8:])
	}
	e.id = binary.BigEndian.Uint64(id[:])
	e.sum = crc32.Update(crc32.Checksum(r.raw[:8], castagnoli), castagnoli, r.raw[10:])
	return e
}

// seenEvery is after how many records Survey tells its progress.
const seenEvery = 1 << 10

// Survey reads the topic's queues once. seen, which may be nil, is told how many
// records more were read, now and then.
func (t *Topic) Survey(ctx context.Context, seen func(records int)) (*Survey, error) {
	if len(t.Channels) >= inTopic {
		return nil, fmt.Errorf("topic %s has %d channels, which are too many", t.Name, len(t.Channels))
	}
	s := &Survey{Topic: t, Each: make([]Count, len(t.Channels))}
	about := t.Queue.about()
	for _, c := range t.Channels {
		about += c.Queue.about()
	}
	s.index = make([]entry, 0, about)
	h := sha256.New()
	field(h, []byte("tidings import 1"), []byte(t.Name))
	var err error
	for i, c := range t.Channels {
		field(h, []byte(c.Name))
		if s.Each[i], err = s.take(ctx, c.Queue, uint16(i), h, seen); err != nil {
			return nil, err
		}
	}
	field(h, nil)
	if s.Waiting, err = s.take(ctx, t.Queue, inTopic, h, seen); err != nil {
		return nil, err
	}
	copy(s.Session[:], h.Sum(nil))
	slices.SortFunc(s.index, func(a, b entry) int {
		if c := a.compare(b); c != 0 {
			return c
		}
		return cmp.Compare(a.queue, b.queue)
	})
	for at := 0; at < len(s.index); {
		g := s.group(at)
		if g[0].queue == inTopic {
			s.Topical++
		} else {
			s.Handed++
		}
		at += len(g)
	}
	return s, nil
}

// field adds bytes behind their length.
func field(h hash.Hash, fields ...[]byte) {
	var n [4]byte
	for _, b := range fields {
		binary.BigEndian.PutUint32(n[:], uint32(len(b)))
		_, _ = h.Write(n[:])
		_, _ = h.Write(b)
	}
}

// take reads a queue into the index.
func (s *Survey) take(ctx context.Context, q *Queue, queue uint16, h hash.Hash, seen func(int)) (n Count, err error) {
	s.Notes = append(s.Notes, q.notes...)
	r := q.reader()
	defer r.close()
	var rec Record
	told := int64(0)
	for r.next(&rec) {
		field(h, rec.raw)
		e := entryOf(&rec)
		e.queue = queue
		s.index = append(s.index, e)
		n.Messages++
		n.Bytes += int64(len(rec.Body))
		s.Largest = max(s.Largest, len(rec.Body))
		if n.Messages-told < seenEvery {
			continue
		}
		if err := ctx.Err(); err != nil {
			return n, err
		}
		if seen != nil {
			seen(int(n.Messages - told))
		}
		told = n.Messages
	}
	if seen != nil {
		seen(int(n.Messages - told))
	}
	s.Notes = append(s.Notes, r.notes...)
	return n, r.err
}

// group is all entries of the message whose first entry stands at a place. Those of
// channels come first.
func (s *Survey) group(at int) []entry {
	end := at + 1
	for end < len(s.index) && s.index[at].compare(s.index[end]) == 0 {
		end++
	}
	return s.index[at:end]
}

// find is the place of a message's first entry.
func (s *Survey) find(e entry) (int, bool) {
	return slices.BinarySearchFunc(s.index, e, func(a, b entry) int { return a.compare(b) })
}
