//go:build faults

package vfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// hiddenPrefix begins the names below of what has no durable name yet; the
// process and a number follow. No view shows them.
const hiddenPrefix = ".volatile-"

// hiddenCount numbers the hidden names of this process.
var hiddenCount atomic.Uint64

func hiddenName() string {
	return fmt.Sprintf("%s%d-%d", hiddenPrefix, os.Getpid(), hiddenCount.Add(1))
}

func isHidden(base string) bool { return strings.HasPrefix(base, hiddenPrefix) }

// do carries out a change of names in the view; it becomes real with SyncDir,
// or early.
func (v *Volatile) do(op *volatileOp) error {
	at := op.to
	if op.from != nil {
		at = op.from
		op.from.dir.names[op.fromName] = nil
		op.from.dir.pending = append(op.from.dir.pending, op)
	}
	if op.to != nil {
		op.to.dir.names[op.toName] = op.node
		if op.to != op.from {
			op.to.dir.pending = append(op.to.dir.pending, op)
		}
	}
	if v.dice.early() {
		return v.commit(at, len(at.dir.pending))
	}
	return nil
}

// commit makes the first n pending changes of d real. One that d shares with
// another folder takes that folder's earlier changes with it.
func (v *Volatile) commit(d *volatileNode, n int) error {
	for range n {
		op := d.dir.pending[0]
		for _, side := range []*volatileNode{op.from, op.to} {
			if side == nil || side == d {
				continue
			}
			if err := v.commit(side, slices.Index(side.dir.pending, op)); err != nil {
				return err
			}
			side.dir.popPending()
		}
		d.dir.popPending()
		if err := v.apply(op); err != nil {
			return err
		}
	}
	return nil
}

// popPending forgets the oldest change, and with the last one the names that
// had to be hidden.
func (d *volatileDir) popPending() {
	if d.pending = d.pending[1:]; len(d.pending) > 0 {
		return
	}
	d.pending = nil
	for name, n := range d.names {
		if n == nil {
			delete(d.names, name)
		}
	}
}

// apply makes one change of names real.
func (v *Volatile) apply(op *volatileOp) error {
	if op.to == nil {
		defer op.node.gone()
		if op.node.dir != nil {
			// What left the folder before it was removed must have left.
			if err := v.commit(op.node, len(op.node.dir.pending)); err != nil {
				return err
			}
			return v.below.RemoveAll(op.node.real())
		}
		return v.below.Remove(op.node.real())
	}
	if err := v.below.Rename(op.node.real(), path.Join(op.to.real(), op.toName)); err != nil {
		return err
	}
	op.node.place, op.node.base = op.to, op.toName
	if op.replaced != nil {
		op.replaced.gone()
	}
	return nil
}

// gone notes that n has no name below any more; open handles keep its bytes.
func (n *volatileNode) gone() {
	n.place = nil
	if n.dir == nil {
		n.data.gone()
	}
}

// sweep removes from d what killed processes have left under hidden names. What
// it cannot remove stays hidden.
func (v *Volatile) sweep(d *volatileNode) {
	if d.dir.swept {
		return
	}
	d.dir.swept = true
	names, err := v.below.ReadDir(d.real())
	if err != nil {
		return
	}
	for _, name := range names {
		rest, hidden := strings.CutPrefix(name, hiddenPrefix)
		owner, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(owner)
		if hidden && err == nil && !alive(pid) {
			_ = v.below.RemoveAll(path.Join(d.real(), name))
		}
	}
}

// alive reports whether a process runs, and true when in doubt.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer func() { _ = p.Release() }()
	if runtime.GOOS == "windows" {
		return true // FindProcess has looked
	}
	err = p.Signal(syscall.Signal(0))
	return !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH)
}
