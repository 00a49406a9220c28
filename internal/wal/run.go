package wal

import (
	"context"
	"time"
)

// idleAfter is how long the log is silent before it declares itself durable.
const idleAfter = time.Second

// Run drives the log until ctx ends or a write or sync fails, also one in
// Drive. At a clean stop everything submitted is durable and declared so, and
// Run returns nil. What is submitted after that is answered with ErrClosed.
func (w *WAL) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	maintained := make(chan struct{})
	go func() {
		defer close(maintained)
		w.runMaintain(ctx)
	}()
	err := w.runWriter(ctx) // and keeps the turn: nobody drives the log again
	stop()
	<-maintained
	if err == nil {
		err = w.Mark()
	}
	w.end(ErrClosed)
	return err
}

// runWriter writes whatever has gathered during the last sync. It returns with
// the turn.
func (w *WAL) runWriter(ctx context.Context) error {
	idle := time.NewTimer(idleAfter)
	defer idle.Stop()
	w.turn.Seize()
	w.writer.now = time.Now
	for seen := uint64(0); ; {
		if err := w.drain(); err != nil || ctx.Err() != nil {
			return err
		}
		if !w.turn.Leave() {
			continue
		}
		late := false
		select {
		case <-ctx.Done():
		case <-w.turn.Bell():
		case <-idle.C:
			late = true
		}
		w.turn.Seize()
		if !late {
			continue
		}
		if w.writer.position == seen {
			if err := w.Mark(); err != nil {
				return err
			}
		}
		seen = w.writer.position
		idle.Reset(idleAfter)
	}
}

// drain does rounds of the hot path while something is due.
func (w *WAL) drain() error {
	for {
		w.turn.Heard()
		if _, due := w.due(); !due {
			return nil
		}
		if err := w.pass(); err != nil {
			return err
		}
	}
}

// due reports whether there is something that must be written now, or a
// failure to be told, and how many bytes of entries are queued.
func (w *WAL) due() (bytes int, due bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes, w.asked || w.failed != nil
}

// pass is one round of the hot path.
func (w *WAL) pass() error {
	err := w.Write()
	if err == nil {
		err = w.Sync()
	}
	w.Finish()
	return err
}

// Drive writes, syncs and finishes what was submitted, on the caller's
// goroutine, which saves waking Run for it; but if somebody else drives the log
// right now, or entries of more than most bytes are queued, it leaves that to
// Run. It does one round at most and reports whether it did; Done is called
// from within. A failure ends Run.
//
// No submit is forgotten: Drive looks at the queue while it has the turn, or
// calls whoever has it. Who has the turn gives it back only after a look that
// found nothing due and no call since that look, or hands it over to Run.
func (w *WAL) Drive(most int) (did bool) {
	if !w.turn.TakeOrCall() {
		return false
	}
	w.turn.Heard()
	if bytes, due := w.due(); due && bytes <= most {
		_ = w.pass() // it is sticky, and rang for Run, which returns it
		did = true
	}
	for {
		w.turn.Heard()
		if _, due := w.due(); due {
			w.turn.HandOver()
			return did
		}
		if w.turn.Leave() {
			return did
		}
	}
}

// runMaintain does the background work, at most a quarter of the time, or half
// while no spare is in stock, so that it does not crowd the device and the
// processor of the hot path.
func (w *WAL) runMaintain(ctx context.Context) {
	const retry = 10 * time.Second // after ENOSPC
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.chores:
		case <-pause.C:
		}
		begin := time.Now()
		did, err := w.Maintain()
		switch {
		case err != nil:
			return // sticky: the writer returns it
		case did && w.Stats().Spares == 0:
			pause.Reset(time.Since(begin))
		case did:
			pause.Reset(3 * time.Since(begin))
		default:
			pause.Reset(retry)
		}
	}
}
