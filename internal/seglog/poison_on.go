//go:build race || faults

package seglog

// poisonChunks: builds for tests overwrite what is given back.
const poisonChunks = true
