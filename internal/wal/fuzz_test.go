package wal

import (
	"bytes"
	"errors"
	"path"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

// What decodes encodes to the same bytes.
func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, frame{shard: 3, kind: KindEntry, typ: 1, term: 2, index: 9}, []byte("data"), 7), uint32(7))
	f.Add(appendHard(nil, 1, HardState{1, 2, 3}, 1), uint32(1))
	f.Add(appendFrame(nil, frame{kind: KindGroup, term: frameSize}, nil, 0), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, seed uint32) {
		h, ok := decodeFrame(b, seed)
		if !ok {
			return
		}
		again := make([]byte, frameSize)
		h.put(again, seed)
		if !bytes.Equal(again, b[:frameSize]) {
			t.Fatalf("%x became %x", b[:frameSize], again)
		}
		if other, ok := decodeFrame(b, seed+1); ok {
			t.Fatalf("passes with another generation: %v", other)
		}
	})
}

// Whatever bytes stand in a segment, recovery ends, refuses or opens; what it
// opened opens again with nothing to cut.
func FuzzRecovery(f *testing.F) {
	f.Add([]byte{0}, uint16(0), false)
	f.Add(bytes.Repeat([]byte{0xff}, 600), uint16(700), true)
	f.Add([]byte{0, 0, 0, 0x40}, uint16(headerSize+24), false)
	lw := writeLog(f, 12, false, false)
	files, err := lw.fs.ReadDir(dir)
	if err != nil {
		f.Fatal(err)
	}
	whole := make(map[string][]byte)
	for _, name := range files {
		if whole[name], err = vfs.ReadFile(lw.fs, path.Join(dir, name)); err != nil {
			f.Fatal(err)
		}
	}
	target := lw.last().Segment
	f.Fuzz(func(t *testing.T, b []byte, at uint16, earlier bool) {
		fs := newFS(t)
		if err := fs.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
		for name, data := range whole {
			if (name == target) != earlier {
				data = bytes.Clone(data)
				copy(data[min(int(at), len(data)):], b)
			}
			file, err := fs.Create(path.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.WriteAt(data, 0); err != nil {
				t.Fatal(err)
			}
		}
		w, err := Open(fs, dir, damageOptions)
		if _, ok := errors.AsType[*CorruptError](err); ok {
			if _, err := Repair(fs, dir, true); err != nil {
				t.Fatal(err)
			}
			w, err = Open(fs, dir, damageOptions)
		}
		if err != nil {
			t.Skip(err) // a format version of the future
		}
		have := read(t, w, 1)
		w = mustOpen(t, fs, damageOptions)
		equal(t, "again", read(t, w, 1), have)
		if n := w.Stats().CutBytes; n > 0 {
			t.Fatalf("cut %d bytes the second time", n)
		}
	})
}
