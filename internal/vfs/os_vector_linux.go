package vfs

import (
	"errors"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

var _ VectorWriter = osFile{}

// vectorMax is how many pieces the kernel takes at once (IOV_MAX).
const vectorMax = 1024

// WriteVectorAt implements VectorWriter with pwritev(2). It does not change
// pieces.
func (f osFile) WriteVectorAt(pieces [][]byte, off int64) (int, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	written := 0
	var writeErr error
	err = conn.Control(func(fd uintptr) {
		for len(pieces) > 0 && writeErr == nil {
			some := pieces[:min(len(pieces), vectorMax)]
			pieces = pieces[len(some):]
			var n int
			n, writeErr = writeVector(int(fd), some, off+int64(written))
			written += n
		}
	})
	if err != nil { // Control refuses only a closed file, with an error of its own
		writeErr = fs.ErrClosed
	}
	if writeErr != nil {
		return written, &fs.PathError{Op: "pwritev", Path: f.Name(), Err: writeErr}
	}
	return written, nil
}

// writeVector writes all pieces, at most vectorMax.
func writeVector(fd int, pieces [][]byte, off int64) (written int, err error) {
	for len(pieces) > 0 {
		n, err := unix.Pwritev(fd, pieces, off+int64(written))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return written, err
		}
		total := 0
		for _, p := range pieces {
			total += len(p)
		}
		written += n
		if n == 0 && total > 0 {
			return written, io.ErrShortWrite
		}
		pieces = behind(pieces, n)
	}
	return written, nil
}

// behind is what is left of pieces after n bytes.
func behind(pieces [][]byte, n int) [][]byte {
	for i, p := range pieces {
		if n < len(p) {
			return append([][]byte{p[n:]}, pieces[i+1:]...)
		}
		n -= len(p)
	}
	return nil
}
