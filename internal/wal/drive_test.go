package wal

import (
	"errors"
	"syscall"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

func TestDrive(t *testing.T) {
	fs := vfs.NewFault(newFS(t))
	w := mustOpen(t, fs, Options{})
	rung := func() bool {
		select {
		case <-w.turn.Bell():
			return true
		default:
			return false
		}
	}
	next, answered := uint64(0), 0
	var answer error
	submit := func(size int, quiet bool) {
		next++
		w.Submit(Append{
			Shard: 1, Entries: []Entry{entry(next, 1, size)}, Sync: true, Quiet: quiet,
			Done: func(err error) { answered++; answer = err },
		})
	}
	check := func(what string, did, wantDid, wantRung bool, wantAnswered int) {
		t.Helper()
		if r := rung(); did != wantDid || r != wantRung || answered != wantAnswered || answer != nil {
			t.Fatalf("%s: did %v, rung %v, %d answered with %v", what, did, r, answered, answer)
		}
	}
	check("nothing there", w.Drive(100), false, false, 0)
	submit(100, true)
	check("nobody is woken", false, false, false, 0)
	check("done here", w.Drive(100), true, false, 1)
	submit(101, true)
	check("too much: left to Run", w.Drive(100), false, true, 1)
	check("and to whoever may do more", w.Drive(101), true, false, 2)
	submit(1, false)
	check("not quiet", w.Drive(100), true, true, 3)
	w.Submit(Append{Shard: 1, Hard: &HardState{Term: 1, Commit: 1}})
	check("what rides along causes no write", w.Drive(100), false, false, 3)
	if !w.turn.TakeOrCall() {
		t.Fatal("the turn was not given back")
	}
	submit(1, true)
	check("somebody else drives", w.Drive(100), false, false, 3)
	if w.turn.Leave() {
		t.Fatal("who drives was not called")
	}
	w.turn.HandOver()
	check("and hands over", w.Drive(100), true, true, 4)

	fs.Fail(vfs.OpSync, "*.wal", syscall.EIO)
	submit(1, true)
	w.Drive(100)
	if !rung() || answered != 5 || !errors.Is(answer, syscall.EIO) {
		t.Fatalf("a failed sync: %d answered with %v", answered, answer)
	}
}
