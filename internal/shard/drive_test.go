package shard

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-io/tidings/internal/vfs"
)

// desk is a ledger that any goroutine may give numbers to.
type desk struct {
	*ledger
	mu      sync.Mutex
	in      []uint64
	waiting map[uint64]chan struct{} // closed when the number is applied
	due     int64                    // when Tick wants to be called
	ticked  int64                    // when it was, at or after due
	alarm   int64                    // what Drain sets due to
}

func (d *desk) Drain(term uint64, now int64, maxBytes int) ([]byte, any) {
	d.mu.Lock()
	d.ledger.waiting = append(d.ledger.waiting, d.in...)
	d.in = d.in[:0]
	d.mu.Unlock()
	if d.alarm != 0 && len(d.ledger.waiting) > 0 {
		d.due, d.alarm = d.alarm, 0
	}
	return d.ledger.Drain(term, now, maxBytes)
}

func (d *desk) Apply(e Entry, token any) error {
	if err := d.ledger.Apply(e, token); err != nil || token == nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range token.([]uint64) {
		close(d.waiting[v])
		delete(d.waiting, v)
	}
	return nil
}

func (d *desk) Tick(now int64) int64 {
	if d.due != 0 && now >= d.due {
		d.ticked, d.due = now, 0
	}
	if d.due != 0 {
		return d.due
	}
	return Never
}

// give leaves a number; the channel is closed when it is applied.
func (d *desk) give(v uint64) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.in = append(d.in, v)
	d.waiting[v] = make(chan struct{})
	return d.waiting[v]
}

// desks opens a rig whose machines are desks.
func desks(t *testing.T, async bool, shards int, disk func(vfs.FS) vfs.FS) (*rig, []*desk) {
	t.Helper()
	r := newRig(t, async, shards)
	r.disk = disk(r.fs)
	var ds []*desk
	r.options = func(o *Options) {
		d := &desk{ledger: o.Machine.(*ledger), waiting: make(map[uint64]chan struct{})}
		o.Machine, o.Clock = d, nil
		ds = append(ds, d)
	}
	r.mustOpen()
	return r, ds
}

func same(fs vfs.FS) vfs.FS { return fs }

func applied(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// With nobody else around, Drive does everything up to the answer, and rings
// for nobody.
func TestDriveAlone(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r, ds := desks(t, async, 1, same)
		r.settle()
		g := r.groups[0]
		for rung := true; rung; { // from the start
			select {
			case <-g.turn.Bell():
			default:
				rung = false
			}
		}
		for v := range uint64(50) {
			done := ds[0].give(v)
			g.armed = Never
			g.Drive()
			if !applied(done) {
				t.Fatalf("%d is not applied", v)
			}
			select {
			case <-g.turn.Bell():
				t.Fatal("the loop was woken")
			default:
			}
			if r.wal.Pending() && r.wal.Drive(1<<20) {
				t.Fatal("something was left to be written")
			}
			if !g.turn.TakeOrCall() || !g.turn.Leave() {
				t.Fatal("the turn was not given back")
			}
		}
	})
}

// slow is a disk whose syncs take some time, so that others run meanwhile.
type slow struct{ vfs.FS }

type slowFile struct{ vfs.File }

func (s slow) Create(name string) (vfs.File, error) {
	f, err := s.FS.Create(name)
	return slowFile{f}, err
}

func (s slow) OpenReadWrite(name string) (vfs.File, error) {
	f, err := s.FS.OpenReadWrite(name)
	return slowFile{f}, err
}

// SyncData implements vfs.File.
func (f slowFile) SyncData() error {
	time.Sleep(time.Duration(rand.IntN(100)) * time.Microsecond)
	return f.File.SyncData()
}

// Many give numbers and drive, or wake, groups that share a log: each number is
// answered, and then nobody has anything to do. In the bubble a number that is
// forgotten is a deadlock, and fails the test.
func TestDriveForgetsNothing(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 100
	}
	for _, how := range []string{"drive", "drive and wake", "large"} {
		t.Run(how, func(t *testing.T) {
			eachMode(t, func(t *testing.T, async bool) {
				synctest.Test(t, func(t *testing.T) {
					r, ds := desks(t, async, 3, func(fs vfs.FS) vfs.FS { return slow{fs} })
					stop := r.live(t)
					for _, g := range r.groups {
						if err := g.LeadReady(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					var wg sync.WaitGroup
					for giver := range 12 {
						wg.Go(func() {
							for i := range rounds {
								at := (giver + i/20) % len(ds)
								v := uint64(giver*rounds + i)
								done := ds[at].give(v)
								switch {
								case how == "drive and wake" && rand.IntN(2) == 0:
									r.groups[at].Wake()
								case how == "large" && rand.IntN(4) == 0:
									r.wal.Drive(0) // the log is not driven here for any entry
									r.groups[at].Drive()
								default:
									r.groups[at].Drive()
								}
								<-done
								if rand.IntN(3) == 0 {
									time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
								}
							}
						})
					}
					wg.Wait()
					synctest.Wait()
					for i, g := range r.groups {
						if s := g.Status(); s.Inflight > 0 || len(ds[i].in) > 0 || len(ds[i].waiting) > 0 {
							t.Errorf("shard %d is not done: %+v", i, s)
						}
						if !g.turn.TakeOrCall() || !g.turn.Leave() {
							t.Errorf("shard %d is still driven", i)
						}
					}
					for _, err := range stop() {
						if err != nil {
							t.Error(err)
						}
					}
				})
			})
		})
	}
}

// What is due earlier than Run knows is not missed when Drive learns of it.
func TestDriveArmsTheTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, ds := desks(t, true, 1, same)
		stop := r.live(t)
		g, d := r.groups[0], ds[0]
		if err := g.LeadReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) // the bubble's time: Run's timer is far away
		synctest.Wait()
		alarm := time.Now().Add(8 * time.Millisecond).UnixNano()
		d.alarm = alarm
		done := d.give(1)
		g.Drive()
		if !applied(done) {
			t.Error("the number is not applied")
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if d.ticked != alarm {
			t.Errorf("called at %d, not at %d", d.ticked, alarm)
		}
		for _, err := range stop() {
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// A sync that fails on a driver's goroutine ends the loops of the group and of
// the log.
func TestDriveMeetsAnError(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		synctest.Test(t, func(t *testing.T) {
			var broken *vfs.Fault
			r, ds := desks(t, async, 1, func(fs vfs.FS) vfs.FS {
				broken = vfs.NewFault(fs)
				return broken
			})
			stop := r.live(t)
			g := r.groups[0]
			if err := g.LeadReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			broken.Fail(vfs.OpSync, "*.wal", syscall.EIO)
			done := ds[0].give(1)
			g.Drive()
			synctest.Wait()
			if applied(done) {
				t.Error("applied without a sync")
			}
			g.Drive() // has no effect any more
			ended := 0
			for _, err := range stop() {
				if errors.Is(err, syscall.EIO) {
					ended++
				}
			}
			if ended != 2 {
				t.Errorf("%d loops ended with the error", ended)
			}
			if fmt.Sprint(ds[0].dropped) != "[1]" {
				t.Errorf("dropped %v", ds[0].dropped)
			}
		})
	})
}
