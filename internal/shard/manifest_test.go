package shard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/testing/protocmp"
)

func sampleManifest() *manifest {
	return &manifest{
		Shard: 3, Seq: 17, Index: 1 << 40, Term: 9, Taken: 1_700_000_000_000_000_000,
		Hard: hardState{Term: 9, Vote: 1, Commit: 1<<40 + 5},
		Conf: &pb.ConfState{
			Voters: []uint64{1, 2, 3}, Learners: []uint64{9}, VotersOutgoing: []uint64{1, 2},
			LearnersNext: []uint64{4}, AutoLeave: new(true),
		},
		State: []byte("state"),
	}
}

func TestManifestRoundTrip(t *testing.T) {
	for _, m := range []*manifest{
		sampleManifest(),
		{Seq: 1, Index: 1, Term: 1, Conf: &pb.ConfState{Voters: []uint64{1}, AutoLeave: new(false)}},
	} {
		got, err := decodeManifest(m.encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, got, protocmp.Transform()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// Every single flipped bit is noticed.
func TestManifestNoticesEveryBit(t *testing.T) {
	b := sampleManifest().encode()
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := decodeManifest(b); !errors.Is(err, ErrManifest) {
				t.Errorf("bit %d of byte %d flipped: %v", bit, i, err)
			}
			b[i] ^= 1 << bit
		}
	}
	for n := range b {
		if _, err := decodeManifest(b[:n]); !errors.Is(err, ErrManifest) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

// A version that another program has written on purpose is not damage: there
// is no way back to an older checkpoint from it.
func TestManifestOfAnotherVersion(t *testing.T) {
	b := sampleManifest().encode()
	b[8] = manifestVersion + 1
	binary.LittleEndian.PutUint32(b[12:], manifestSum(b))
	if _, err := decodeManifest(b); !errors.Is(err, ErrManifestVersion) {
		t.Errorf("version %d: %v", b[8], err)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add(sampleManifest().encode()[manifestHeader:], false)
	installed := sampleManifest()
	installed.Installed, installed.Void = true, entryID{7, 3}
	f.Add(installed.encode()[manifestHeader:], true)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, fields []byte, second bool) {
		version := uint32(1)
		if second {
			version = 2
		}
		m, err := decodeManifest(seal(append(make([]byte, manifestHeader), fields...), version))
		if err != nil {
			if !errors.Is(err, ErrManifest) {
				t.Fatal(err)
			}
			return
		}
		again, err := decodeManifest(m.encode())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.State, m.State) || again.Index != m.Index || again.Void != m.Void || again.Installed != m.Installed {
			t.Fatalf("%+v became %+v", m, again)
		}
	})
}
