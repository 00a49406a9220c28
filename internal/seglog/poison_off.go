//go:build !race && !faults

package seglog

// poisonChunks: see the other build.
const poisonChunks = false
