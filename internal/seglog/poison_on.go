//go:build race || faults

package seglog

// PoisonChunks: builds for tests overwrite what is given back.
const PoisonChunks = true
