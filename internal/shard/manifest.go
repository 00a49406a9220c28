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
//	8   4  format version, 1
//	12  4  CRC32C over bytes 0–11 and everything from byte 16 to the end; it
//	       stands here in every version, so that a damaged version number is
//	       told from a new one
//	16  …  uvarints: shard, sequence, index, term, taken (unix ns),
//	       hard state (term, vote, commit), five counted lists of the
//	       membership (voters, learners, outgoing voters, next learners; the
//	       fifth is auto-leave as 0 or 1), length of the body
//	…   …  body: what the machine's Checkpoint.Write returned
const (
	manifestMagic   = "tidings\x01"
	manifestVersion = 1
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
}

// hardState is Raft's durable vote and what it knows as committed.
type hardState struct{ Term, Vote, Commit uint64 }

// encode returns the bytes of the file.
func (m *manifest) encode() []byte {
	b := make([]byte, manifestHeader, manifestHeader+128+len(m.State))
	for _, v := range []uint64{
		uint64(m.Shard), m.Seq, m.Index, m.Term, uint64(m.Taken),
		m.Hard.Term, m.Hard.Vote, m.Hard.Commit,
	} {
		b = binary.AppendUvarint(b, v)
	}
	for _, list := range [][]uint64{
		m.Conf.GetVoters(), m.Conf.GetLearners(), m.Conf.GetVotersOutgoing(), m.Conf.GetLearnersNext(),
	} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, id := range list {
			b = binary.AppendUvarint(b, id)
		}
	}
	leave := uint64(0)
	if m.Conf.GetAutoLeave() {
		leave = 1
	}
	b = binary.AppendUvarint(b, leave)
	b = binary.AppendUvarint(b, uint64(len(m.State)))
	return seal(append(b, m.State...))
}

// seal fills in the header in front of the fields.
func seal(b []byte) []byte {
	copy(b, manifestMagic)
	binary.LittleEndian.PutUint32(b[8:], manifestVersion)
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
	if v := binary.LittleEndian.Uint32(b[8:]); v != manifestVersion {
		return nil, fmt.Errorf("read version %d: %w", v, ErrManifestVersion)
	}
	r := reader{b: b[manifestHeader:]}
	m := &manifest{
		Shard: uint32(r.uint()), Seq: r.uint(), Index: r.uint(), Term: r.uint(), Taken: int64(r.uint()),
		Hard: hardState{Term: r.uint(), Vote: r.uint(), Commit: r.uint()},
	}
	m.Conf = &pb.ConfState{
		Voters: r.list(), Learners: r.list(), VotersOutgoing: r.list(), LearnersNext: r.list(),
	}
	m.Conf.AutoLeave = new(r.uint() != 0)
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
