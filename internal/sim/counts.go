package sim

import (
	"fmt"
	"strings"
)

// count is something that a run must have met.
type count int

// What is counted. Those up to optional must not be zero over all seeds.
const (
	Recycles count = iota
	TornCut
	UnsyncedLost
	Oversize
	CrashWrite
	CrashSync
	CrashFlush
	CrashCheckpoint
	CrashRecycle
	CrashCompact
	CrashSpill
	CrashOpen
	CrashIdle
	Kills
	CleanStops
	Fallbacks
	BothDamaged
	DamageRefused
	Compactions
	PinnedReads
	Spills
	DiskRefusals
	DiskStops
	Checkpoints
	Replayed
	Unanswered
	DueDelivered
	Redelivered
	Swept
	WholeSyncs
	Acknowledged
	Ingested
	Raises
	optional
	Overloads count = iota - 1
	counts
)

var countNames = [counts]string{
	"recycles", "torn-tails-cut", "unsynced-tails-lost", "oversize-frames", "crashes-in-write", "crashes-in-sync",
	"crashes-in-flush", "crashes-in-checkpoint", "crashes-in-recycle", "crashes-in-compaction", "crashes-in-spill", "crashes-in-recovery", "crashes-between",
	"kills", "clean-stops", "checkpoint-fallbacks", "both-checkpoints-refused", "wal-damage-refused",
	"compactions", "pinned-reads", "spills", "disk-full-refusals", "disk-full-stops", "checkpoints",
	"entries-replayed", "publishes-unanswered", "due-delivered", "redelivered", "swept", "whole-syncs", "acknowledged", "ingested", "raises", "overloads",
}

// Counts are how often each thing was met.
type Counts [counts]int64

// Add adds those of another run.
func (c *Counts) Add(o *Counts) {
	for i := range c {
		c[i] += o[i]
	}
}

// Missing names what was never met and should have been.
func (c *Counts) Missing() []string {
	var names []string
	for i := range optional {
		if c[i] == 0 {
			names = append(names, countNames[i])
		}
	}
	return names
}

// String lists the counts as name=value.
func (c *Counts) String() string {
	var b strings.Builder
	for i, n := range c {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s=%d", countNames[i], n)
	}
	return b.String()
}
