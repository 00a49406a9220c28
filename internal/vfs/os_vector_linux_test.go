package vfs

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
)

func TestWriteVectorAt(t *testing.T) {
	f, err := OS{}.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	var pieces [][]byte
	var want []byte
	for i := range 3 * vectorMax / 2 {
		p := bytes.Repeat([]byte{byte(i)}, i%7)
		pieces, want = append(pieces, p), append(want, p...)
	}
	n, err := f.(VectorWriter).WriteVectorAt(pieces, 5)
	if n != len(want) || err != nil {
		t.Fatalf("wrote %d of %d, %v", n, len(want), err)
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 5); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read back other bytes, %v", err)
	}
	if size, err := f.Size(); err != nil || size != int64(len(want)+5) {
		t.Fatalf("%d bytes, %v", size, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.(VectorWriter).WriteVectorAt(pieces, 0); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("write to a closed file: %v", err)
	}
}

func TestBehind(t *testing.T) {
	pieces := [][]byte{[]byte("abc"), {}, []byte("de"), []byte("f")}
	for n, want := range []string{"abcdef", "bcdef", "cdef", "def", "ef", "f", ""} {
		if got := bytes.Join(behind(pieces, n), nil); string(got) != want {
			t.Errorf("behind %d: %q, want %q", n, got, want)
		}
	}
	if string(pieces[0]) != "abc" {
		t.Error("the pieces were changed")
	}
}
