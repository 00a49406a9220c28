package vfs

// VectorWriter is a File that can write several pieces of memory that are to
// stand one after the other in one call, without putting them together first.
// Files that have no such call do not implement it.
type VectorWriter interface {
	// WriteVectorAt writes all pieces at off and returns how many bytes it wrote;
	// like WriteAt it gives an error when they are fewer.
	WriteVectorAt(pieces [][]byte, off int64) (int, error)
}
