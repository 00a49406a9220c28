package shard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	pb "go.etcd.io/raft/v3/raftpb"
)

// The file of a checkpoint, numbers little-endian where fixed:
//
//	0   8  magic "tidings\x01"
//	8   4  format version, 1 or 2
//	12  4  CRC32C over bytes 0–11 and everything from byte 16 to the end; it
//	       stands here in every version, so that a damaged version number is
//	       told from a new one
//	16  …  uvarints: shard, sequence, index, term, taken (unix ns),
//	       hard state (term, vote, commit), five counted lists of the
//	       membership (voters, learners, outgoing voters, next learners; the
//	       fifth is auto-leave as 0 or 1); in version 2: 1 where the state was
//	       installed, index and term of the void entry; length of the body
//	…   …  body: what the machine's Checkpoint.Write returned
const (
	manifestMagic   = "tidings\x01"
	manifestVersion = 2
	manifestHeader  = 16
)

var (
	// ErrManifest says that a checkpoint's file is damaged.
	ErrManifest = errors.New("damaged checkpoint")
	// ErrManifestVersion says that a checkpoint was written by a newer version.
	ErrManifestVersion = errors.New("unknown checkpoint format")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// manifest is one checkpoint of a group.
type manifest struct {
	Shard uint32
	Seq   uint64 // number of the checkpoint, rises by one
	Index uint64 // all entries up to it are in the state
	Term  uint64 // term of the entry at Index
	Taken int64  // unix ns
	Hard  hardState
	Conf  *pb.ConfState
	State []byte // nil: the empty state of a new group

	// Installed says that the state came from another replica: an older
	// checkpoint must not be used.
	Installed bool
	// Void is the last entry of the WAL when a state was installed. As long as
	// it is the last, nothing in the WAL is part of the log; zero: it is.
	Void entryID
}

// entryID names an entry. Two logs that hold the same are equal up to it.
type entryID struct{ Index, Term uint64 }

// hardState is Raft's durable vote and what it knows as committed.
type hardState struct{ Term, Vote, Commit uint64 }

// message is the hard state as the library takes it.
func (h hardState) message() *pb.HardState {
	return &pb.HardState{Term: new(h.Term), Vote: new(h.Vote), Commit: new(h.Commit)}
}

// encode returns the bytes of the file.
func (m *manifest) encode() []byte {
	b := make([]byte, manifestHeader, manifestHeader+128+len(m.State))
	for _, v := range []uint64{
		uint64(m.Shard), m.Seq, m.Index, m.Term, uint64(m.Taken),
		m.Hard.Term, m.Hard.Vote, m.Hard.Commit,
	} {
		b = binary.AppendUvarint(b, v)
	}
	b = appendConf(b, m.Conf)
	version := uint32(1)
	if m.Installed || m.Void != (entryID{}) {
		version = 2
		b = appendBool(b, m.Installed)
		b = binary.AppendUvarint(b, m.Void.Index)
		b = binary.AppendUvarint(b, m.Void.Term)
	}
	b = binary.AppendUvarint(b, uint64(len(m.State)))
	return seal(append(b, m.State...), version)
}

// appendConf writes a membership.
func appendConf(b []byte, conf *pb.ConfState) []byte {
	for _, list := range [][]uint64{
		conf.GetVoters(), conf.GetLearners(), conf.GetVotersOutgoing(), conf.GetLearnersNext(),
	} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, id := range list {
			b = binary.AppendUvarint(b, id)
		}
	}
	return appendBool(b, conf.GetAutoLeave())
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// seal fills in the header in front of the fields.
func seal(b []byte, version uint32) []byte {
	copy(b, manifestMagic)
	binary.LittleEndian.PutUint32(b[8:], version)
	binary.LittleEndian.PutUint32(b[12:], manifestSum(b))
	return b
}

// manifestSum is the checksum of a file.
func manifestSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[manifestHeader:])
}

// decodeManifest reads the bytes of a file: ErrManifest or ErrManifestVersion
// when they are no checkpoint of ours. The state shares the bytes.
func decodeManifest(b []byte) (*manifest, error) {
	if len(b) < manifestHeader || string(b[:8]) != manifestMagic {
		return nil, fmt.Errorf("read header: %w", ErrManifest)
	}
	if binary.LittleEndian.Uint32(b[12:]) != manifestSum(b) {
		return nil, fmt.Errorf("check sum: %w", ErrManifest)
	}
	version := binary.LittleEndian.Uint32(b[8:])
	if v := version; v < 1 || v > manifestVersion {
		return nil, fmt.Errorf("read version %d: %w", v, ErrManifestVersion)
	}
	r := reader{b: b[manifestHeader:]}
	m := &manifest{
		Shard: uint32(r.uint()), Seq: r.uint(), Index: r.uint(), Term: r.uint(), Taken: int64(r.uint()),
		Hard: hardState{Term: r.uint(), Vote: r.uint(), Commit: r.uint()},
	}
	m.Conf = r.conf()
	if version >= 2 {
		m.Installed = r.uint() != 0
		m.Void = entryID{r.uint(), r.uint()}
	}
	size := r.uint()
	if r.bad || size != uint64(len(r.b)) {
		return nil, fmt.Errorf("read fields: %w", ErrManifest)
	}
	if size > 0 {
		m.State = r.b
	}
	return m, nil
}

// reader takes uvarints from bytes; bad once they end early.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// conf reads what appendConf wrote.
func (r *reader) conf() *pb.ConfState {
	c := &pb.ConfState{
		Voters: r.list(), Learners: r.list(), VotersOutgoing: r.list(), LearnersNext: r.list(),
	}
	c.AutoLeave = new(r.uint() != 0)
	return c
}

func (r *reader) list() []uint64 {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	var l []uint64
	for range n {
		l = append(l, r.uint())
	}
	return l
}
