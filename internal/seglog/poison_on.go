//go:build race || faults

package seglog

// PoisonChunks says that chunks which are given back are overwritten: in builds for
// tests.
const PoisonChunks = true
