//go:build !race && !faults

package seglog

// PoisonChunks is told of in the other build.
const PoisonChunks = false
