package shard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	pb "go.etcd.io/raft/v3/raftpb"
)

// A transfer session carries a state to a replica that has fallen behind the
// log. The replica sends a request,
//
//	format version u8 = 1, uvarints shard, applied, then the machine's Have
//
// and pulls chunks, each of which begins with its kind:
//
//	head  u8 = 1, uvarints format version = 1, shard, index, term, size in
//	      bytes, membership as in a manifest
//	data  u8 = 2, what the machine's Export yields
//	end   u8 = 3, uvarint number of data chunks, u32 CRC32C of all before
const sessionVersion = 1

const (
	chunkHead = 1
	chunkData = 2
	chunkEnd  = 3
)

var (
	// ErrSession says that a transfer session cannot go on; another may begin.
	ErrSession = errors.New("transfer session has ended")
	// ErrNotBehind says that the replica needs no state: the log will do.
	ErrNotBehind = errors.New("replica is not behind the log")
	// errChunk says that a chunk is not what a session sends.
	errChunk = errors.New("malformed chunk")
)

// Progress of a transfer session.
type Progress struct {
	Peer    uint64 // Raft id of the other side
	Index   uint64 // of the state; 0 as long as it is not known
	Bytes   int64  // of chunks so far
	Total   int64  // about how many they will be
	Started int64  // unix ns
	Stage   string // what is being done: receive, sync, install; send
}

// request is what a replica asks a session with.
type request struct {
	shard   uint32
	applied uint64
	have    []byte
}

func (r *request) encode() []byte {
	b := binary.AppendUvarint([]byte{sessionVersion}, uint64(r.shard))
	b = binary.AppendUvarint(b, r.applied)
	return append(b, r.have...)
}

func decodeRequest(b []byte) (request, error) {
	if len(b) == 0 || b[0] != sessionVersion {
		return request{}, fmt.Errorf("read request of a session: %w", errChunk)
	}
	d := reader{b: b[1:]}
	r := request{shard: uint32(d.uint()), applied: d.uint()}
	if d.bad {
		return request{}, fmt.Errorf("read request of a session: %w", errChunk)
	}
	r.have = d.b
	return r, nil
}

// sessionHead is what the first chunk says.
type sessionHead struct {
	shard       uint32
	index, term uint64
	size        int64
	conf        *pb.ConfState
}

func (h *sessionHead) encode(b []byte) []byte {
	b = append(b, chunkHead)
	for _, v := range []uint64{sessionVersion, uint64(h.shard), h.index, h.term, uint64(h.size)} {
		b = binary.AppendUvarint(b, v)
	}
	return appendConf(b, h.conf)
}

func decodeHead(b []byte) (sessionHead, error) {
	d := reader{b: b}
	if v := d.uint(); v != sessionVersion {
		return sessionHead{}, fmt.Errorf("read session of format %d: %w", v, errChunk)
	}
	h := sessionHead{shard: uint32(d.uint()), index: d.uint(), term: d.uint(), size: int64(d.uint()), conf: d.conf()}
	if d.bad || len(d.b) > 0 {
		return sessionHead{}, fmt.Errorf("read head of a session: %w", errChunk)
	}
	return h, nil
}

// tally is the running checksum over the chunks of a session.
type tally struct {
	sum    uint32
	chunks uint64
}

func (t *tally) add(chunk []byte) {
	t.sum = crc32.Update(t.sum, castagnoli, chunk)
	t.chunks++
}

// end appends the chunk that ends a session.
func (t *tally) end(b []byte) []byte {
	b = binary.AppendUvarint(append(b, chunkEnd), t.chunks)
	return binary.LittleEndian.AppendUint32(b, t.sum)
}

// matches reports whether the end of a session, without its kind, fits.
func (t *tally) matches(b []byte) bool {
	n, size := binary.Uvarint(b)
	return size > 0 && len(b) == size+4 && n == t.chunks && binary.LittleEndian.Uint32(b[size:]) == t.sum
}
