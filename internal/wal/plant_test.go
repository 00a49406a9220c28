//go:build faults

package wal

import (
	"testing"

	"github.com/tidings-io/tidings/internal/plant"
)

// The crash loop must catch each planted bug; one that does not is itself
// broken.
func TestPlantedBugsAreCaught(t *testing.T) {
	for _, bug := range []string{"wal-ack-before-sync", "wal-hardstate-not-carried", "wal-stale-frame", "nosync"} {
		t.Run(bug, func(t *testing.T) {
			plant.Set(bug)
			defer plant.Set()
			for seed := range uint64(50) {
				if why := catch(t, seed); why != "" {
					t.Logf("seed %d: %s", seed, why)
					return
				}
			}
			t.Fatal("not caught")
		})
	}
}

// catch runs a crash loop and returns what it found.
func catch(t *testing.T, seed uint64) (why string) {
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(failure)
			if !ok {
				panic(p)
			}
			why = string(f)
		}
	}()
	l := newCrashLoop(t, seed, seen{})
	l.soft = true
	l.run(3000)
	return ""
}

// With the planted bug a flip below the durable mark is cut as if torn: the
// log opens although it has lost what was durable.
func TestCutMiddleIsCaught(t *testing.T) {
	for _, c := range damageCases {
		if c.name != "flip in the last segment" && c.name != "flip in the last write below the mark" {
			continue
		}
		lw := writeLog(t, 22, c.clean, false)
		c.change(t, lw)
		if _, err := Open(lw.fs, dir, damageOptions); err == nil {
			t.Fatalf("%s: opened without the bug", c.name)
		}
		plant.Set("wal-cut-middle")
		w, err := Open(lw.fs, dir, damageOptions)
		plant.Set()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if last, _ := w.Last(1); last >= 22 {
			t.Fatalf("%s: nothing was lost", c.name)
		}
	}
}
