package turn

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

func rung(t *Turn) bool {
	select {
	case <-t.Bell():
		return true
	default:
		return false
	}
}

func TestTurn(t *testing.T) {
	tests := map[string]func(*Turn) []bool{
		"a call finds nobody":  func(x *Turn) []bool { x.Call(); return []bool{rung(x)} },
		"a free turn is taken": func(x *Turn) []bool { return []bool{x.TakeOrCall(), !rung(x), x.Leave(), !rung(x)} },
		"a call is heard": func(x *Turn) []bool {
			return []bool{x.TakeOrCall(), !x.TakeOrCall(), !rung(x), !x.Leave(), x.Leave(), !rung(x)}
		},
		"a call before the look is done": func(x *Turn) []bool { x.TakeOrCall(); x.Call(); x.Heard(); return []bool{x.Leave(), !rung(x)} },
		"the regular is rung": func(x *Turn) []bool {
			return []bool{x.TakeOrCall(), !x.TakeOrWant(), x.Leave(), rung(x), x.TakeOrWant()}
		},
		"a want is not heard away": func(x *Turn) []bool {
			x.TakeOrCall()
			x.TakeOrWant()
			x.Heard()
			x.Call()
			return []bool{x.Leave(), rung(x)}
		},
		"a call becomes a want": func(x *Turn) []bool { x.TakeOrCall(); x.Call(); x.TakeOrWant(); return []bool{x.Leave(), rung(x)} },
		"handed over": func(x *Turn) []bool {
			x.TakeOrCall()
			x.Call()
			x.HandOver()
			return []bool{rung(x), x.TakeOrWant(), x.Leave()}
		},
	}
	for name, run := range tests {
		t.Run(name, func(t *testing.T) {
			for i, ok := range run(New()) {
				if !ok {
					t.Errorf("look %d is wrong", i)
				}
			}
		})
	}
}

// Many give work and drive, one waits at the bell: every piece is done, by one
// driver at a time.
func TestNothingIsForgotten(t *testing.T) {
	const givers, each = 8, 20000
	x := New()
	var left, done atomic.Int64
	driven := 0 // owned by who has the turn; the race detector watches
	look := func() {
		x.Heard()
		n := left.Swap(0)
		driven += int(n)
		done.Add(n)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-x.Bell():
			case <-stop:
				return
			}
			x.Seize()
			for look(); !x.Leave(); look() {
			}
		}
	}()
	var wg sync.WaitGroup
	for g := range givers {
		wg.Go(func() {
			for i := range each {
				left.Add(1)
				switch {
				case i%3 == g%3:
					x.Call()
				case x.TakeOrCall():
					look()
					if i%5 == 0 {
						x.HandOver()
					} else if !x.Leave() {
						x.HandOver()
					}
				}
			}
		})
	}
	wg.Wait()
	for done.Load() < givers*each {
		runtime.Gosched() // a piece that is forgotten makes this wait for ever
	}
	close(stop)
	<-ended
	if driven != givers*each || !x.TakeOrCall() {
		t.Fatalf("%d pieces", driven)
	}
}
