package shard

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tidings-io/tidings/internal/wal"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// entryOverhead approximates what an entry takes beside its data, in bytes.
const entryOverhead = 32

// storage is the library's view of the group's log: the entries between
// submission and apply from memory, older ones from the WAL. The group's loop
// owns it. It never holds entries at or below the older checkpoint.
type storage struct {
	wal   *wal.WAL
	shard uint32

	hard *pb.HardState // as recovered; read once by the library
	conf *pb.ConfState // membership as of what is applied

	base     uint64 // entries at or below are behind the older checkpoint
	baseTerm uint64 // term of the entry at base
	last     uint64 // last entry that was handed to the WAL; ≥ base

	newest point // the last checkpoint

	cache []*pb.Entry // consecutive, ends at last; empty once all is applied
	err   error       // first failure of a read; the library panics on it
}

// InitialState returns what was recovered.
func (s *storage) InitialState() (*pb.HardState, *pb.ConfState, error) {
	return s.hard, s.conf, nil
}

// FirstIndex is the first entry above the older checkpoint.
func (s *storage) FirstIndex() (uint64, error) { return s.base + 1, nil }

// LastIndex is the last entry that was handed to the WAL.
func (s *storage) LastIndex() (uint64, error) { return s.last, nil }

// Term returns the term of an entry from the base to the last.
func (s *storage) Term(index uint64) (uint64, error) {
	switch {
	case index < s.base:
		return 0, raft.ErrCompacted
	case index == s.base:
		return s.baseTerm, nil
	case index > s.last:
		return 0, raft.ErrUnavailable
	}
	if lo := s.cacheFirst(); index >= lo {
		return s.cache[index-lo].GetTerm(), nil
	}
	term, err := s.wal.Term(s.shard, index)
	if err != nil {
		return 0, s.fail(fmt.Errorf("read term of entry %d: %w", index, err))
	}
	return term, nil
}

// Entries returns the entries from lo to before hi, as many as fit maxSize
// bytes but at least one.
func (s *storage) Entries(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	switch {
	case lo <= s.base:
		return nil, raft.ErrCompacted
	case hi > s.last+1:
		return nil, raft.ErrUnavailable
	}
	first := s.cacheFirst()
	if lo >= first {
		return limit(s.cache[lo-first:hi-first], maxSize), nil
	}
	return s.read(lo, min(hi, first), maxSize)
}

// read takes entries from the WAL.
func (s *storage) read(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	const most = 64 << 20 // bytes; the library's "no limit" must not read a whole log
	got, err := s.wal.Entries(s.shard, lo, hi, int(min(maxSize, most)))
	if err != nil {
		return nil, s.fail(fmt.Errorf("read entries %d to %d: %w", lo, hi-1, err))
	}
	ents := make([]*pb.Entry, len(got))
	for i := range got {
		e := &got[i]
		ents[i] = &pb.Entry{
			Index: &e.Index, Term: &e.Term,
			Type: pb.EntryType(e.Type).Enum(), Data: e.Data,
		}
	}
	return ents, nil
}

// Snapshot names the newest checkpoint. The library sends it to a replica that
// needs entries at or below the base, as a signal that it must get a state; the
// state itself goes through a session.
func (s *storage) Snapshot() (*pb.Snapshot, error) {
	if s.newest.index == 0 {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &pb.Snapshot{Metadata: &pb.SnapshotMetadata{
		Index: new(s.newest.index), Term: new(s.newest.term), ConfState: s.newest.conf,
	}}, nil
}

// append takes entries that go to the WAL; the first may replace a suffix.
func (s *storage) append(ents []*pb.Entry) {
	if len(ents) == 0 {
		return
	}
	at := ents[0].GetIndex()
	if first := s.cacheFirst(); at >= first {
		clear(s.cache[at-first:])
		s.cache = append(s.cache[:at-first], ents...)
	} else {
		clear(s.cache)
		s.cache = append(s.cache[:0], ents...)
	}
	s.last = ents[len(ents)-1].GetIndex()
}

// applied lets go of entries that will be read from the WAL if ever again.
func (s *storage) applied(index uint64) {
	first := s.cacheFirst()
	if index < first {
		return
	}
	s.cache = slices.Delete(s.cache, 0, min(int(index-first)+1, len(s.cache)))
	if len(s.cache) == 0 && cap(s.cache) > entriesKept {
		s.cache = nil
	}
}

// compact moves the base up to a checkpoint.
func (s *storage) compact(index, term uint64) {
	if index > s.base {
		s.base, s.baseTerm = index, term
	}
}

func (s *storage) cacheFirst() uint64 { return s.last + 1 - uint64(len(s.cache)) }

// fail remembers an error of the WAL and gives it the name that the library
// knows, if there is one.
func (s *storage) fail(err error) error {
	switch {
	case errors.Is(err, wal.ErrCompacted):
		return raft.ErrCompacted
	case errors.Is(err, wal.ErrUnavailable):
		return raft.ErrUnavailable
	}
	if s.err == nil {
		s.err = err
	}
	return err
}

// limit cuts ents to maxSize bytes, keeping at least one, and protects the
// cache from the caller's appends.
func limit(ents []*pb.Entry, maxSize uint64) []*pb.Entry {
	var size uint64
	for i, e := range ents {
		size += uint64(len(e.Data)) + entryOverhead
		if i > 0 && size > maxSize {
			ents = ents[:i]
			break
		}
	}
	return append([]*pb.Entry(nil), ents...)
}
