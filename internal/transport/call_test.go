package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

// inMemory runs a test in a bubble, with two nodes that know each other.
func inMemory(t *testing.T, change func(*Options), f func(t *testing.T, r *rig, a, b *node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true)
		a, b := r.start("a", change), r.start("b", change)
		r.meet()
		f(t, r, a, b)
	})
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestCalls(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		a, b := r.start("a", nil), r.start("b", nil)
		r.meet()
		a.serveEcho()
		b.serveEcho()
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				body := bytes.Repeat([]byte{byte(i)}, i*i*50)
				from, to := a, b
				if i%2 == 1 {
					from, to = b, a
				}
				got, err := from.Call(within(t, 20*time.Second), Peer{ID: to.o.RaftID}, methodEcho, body)
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("call %d: %d bytes, %v", i, len(got), err)
				}
			})
		}
		wg.Wait()
		got, err := a.Call(within(t, 20*time.Second), Peer{ID: b.o.RaftID}, methodFrom, nil)
		if want := "1 a 1001 c1 true"; err != nil || string(got) != want {
			t.Errorf("got %q, %v", got, err)
		}
		if s := a.link(b, Calls); s.Calls != 0 || s.Connects != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestCallErrors(t *testing.T) {
	inMemory(t, nil, func(t *testing.T, _ *rig, a, b *node) {
		b.Handle(methodFail, func(_ context.Context, _ From, name []byte) ([]byte, error) {
			switch string(name) {
			case "plain":
				return nil, errors.New("no good")
			case "big":
				return make([]byte, 40<<20), nil
			}
			return nil, fault.New(fault.TopicNotFound, "read topic %s", name)
		})
		tests := []struct {
			method  Method
			body    string
			code    fault.Code
			text    string
			notSent bool
		}{
			{methodFail, "orders", fault.TopicNotFound, "node b: read topic orders", false},
			{methodFail, "plain", fault.Internal, "node b: no good", false},
			{methodFail, "big", fault.BodyTooBig, "node b: reply of 41943040 bytes, at most 33554432 can be sent", false},
			{methodFail, strings.Repeat("x", 33<<20), fault.BodyTooBig, "call b: not sent: larger than the peer's largest frame", true},
			{77, "", fault.Unsupported, "node b: method 77 is not known: not sent", true},
		}
		for _, tt := range tests {
			_, err := a.Call(within(t, time.Second), Peer{ID: b.o.RaftID}, tt.method, []byte(tt.body))
			if fault.CodeOf(err) != tt.code || err.Error() != tt.text || errors.Is(err, ErrNotSent) != tt.notSent || errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("%.20s: %v (%v)", tt.body, err, fault.CodeOf(err))
			}
		}
		if s := a.link(b, Calls); s.Connects != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// One goroutine's calls start in their order, whatever the order of the answers.
func TestCallsKeepOrder(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		a, b := r.start("a", nil), r.start("b", nil)
		r.meet()
		var mu sync.Mutex
		next := make(map[uint32]uint32)
		b.HandleAsync(methodOrder, func(_ context.Context, _ From, req []byte, respond func([]byte, error)) {
			stream, n := binary.LittleEndian.Uint32(req), binary.LittleEndian.Uint32(req[4:])
			mu.Lock()
			defer mu.Unlock()
			if next[stream] != n {
				t.Errorf("call %d of stream %d instead of %d", n, stream, next[stream])
			}
			next[stream] = n + 1
			if n%3 == 0 {
				respond(req, nil)
				return
			}
			go respond(req, nil)
		})
		var wg, answers sync.WaitGroup
		for stream := range uint32(3) {
			wg.Go(func() {
				for n := range uint32(300) {
					req := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, stream), n)
					answers.Add(1)
					err := a.Go(context.Background(), Peer{ID: b.o.RaftID}, methodOrder, req, func(got []byte, err error) {
						defer answers.Done()
						if err != nil || !bytes.Equal(got, req) {
							t.Errorf("stream %d call %d: %x, %v", stream, n, got, err)
						}
					})
					if err != nil {
						answers.Done()
						t.Errorf("stream %d call %d: %v", stream, n, err)
					}
				}
			})
		}
		wg.Wait()
		answers.Wait()
	})
}

// waiting is a handler that tells when it starts and ends with its context.
type waiting struct {
	started chan struct{}
	ended   chan error
}

func (n *node) serveWaiting() *waiting {
	w := &waiting{make(chan struct{}, 10), make(chan error, 10)}
	n.Handle(methodWait, func(ctx context.Context, _ From, _ []byte) ([]byte, error) {
		w.started <- struct{}{}
		<-ctx.Done()
		w.ended <- ctx.Err()
		return nil, ctx.Err()
	})
	return w
}

func TestCallDeadlineAndCancel(t *testing.T) {
	inMemory(t, nil, func(t *testing.T, _ *rig, a, b *node) {
		w := b.serveWaiting()
		began := time.Now()
		_, err := a.Call(within(t, 300*time.Millisecond), Peer{ID: b.o.RaftID}, methodWait, nil)
		if !errors.Is(err, ErrUnknownOutcome) || fault.CodeOf(err) != fault.Timeout {
			t.Errorf("deadline: %v", err)
		}
		if d := time.Since(began); d != 300*time.Millisecond {
			t.Errorf("the deadline came after %s", d)
		}
		if err := <-w.ended; !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context: %v", err)
		}
		<-w.started
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-w.started; cancel() }()
		_, err = a.Call(ctx, Peer{ID: b.o.RaftID}, methodWait, nil)
		if !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
			t.Errorf("cancel: %v", err)
		}
		if err := <-w.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context: %v", err)
		}
		_, err = a.Call(ctx, Peer{ID: b.o.RaftID}, methodWait, nil)
		if !errors.Is(err, ErrNotSent) || !errors.Is(err, context.Canceled) {
			t.Errorf("dead context: %v", err)
		}
		if s := a.link(b, Calls); s.Calls != 0 {
			t.Errorf("%d calls are left", s.Calls)
		}
	})
}

func TestCallOutcomes(t *testing.T) {
	inMemory(t, nil, func(t *testing.T, r *rig, a, b *node) {
		w := b.serveWaiting()
		// The link breaks when the handler has begun.
		go func() { <-w.started; r.net.breakAll() }()
		_, err := a.Call(context.Background(), Peer{ID: b.o.RaftID}, methodWait, nil)
		if !errors.Is(err, ErrUnknownOutcome) || errors.Is(err, ErrNotSent) || fault.CodeOf(err) != fault.Timeout {
			t.Errorf("broken link: %v", err)
		}
		if err := <-w.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context: %v", err)
		}
		// A silent cut: the peer answers no more.
		go func() { <-w.started; r.net.setDark(func(string, string) bool { return true }) }()
		began := time.Now()
		_, err = a.Call(context.Background(), Peer{ID: b.o.RaftID}, methodWait, nil)
		if d := time.Since(began); !errors.Is(err, ErrUnknownOutcome) || d > 2600*time.Millisecond {
			t.Errorf("cut link after %s: %v", d, err)
		}
		// Nobody answers the dial; then the back-off refuses at once.
		_, err = a.Call(context.Background(), Peer{ID: b.o.RaftID}, methodWait, nil)
		if !errors.Is(err, ErrNotSent) || errors.Is(err, ErrUnknownOutcome) || fault.CodeOf(err) != fault.Unreachable {
			t.Errorf("unreachable: %v", err)
		}
		began = time.Now()
		_, err = a.Call(context.Background(), Peer{ID: b.o.RaftID}, methodWait, nil)
		if !errors.Is(err, ErrNotSent) || time.Since(began) > 0 {
			t.Errorf("back-off after %s: %v", time.Since(began), err)
		}
		_, err = a.Call(context.Background(), Peer{ID: 12345}, methodWait, nil)
		if !errors.Is(err, ErrNotSent) || err.Error() != "call raft id 3039: not sent: no known peer, and no address given" {
			t.Errorf("no peer: %v", err)
		}
	})
}

// Calls beyond the bounds are refused; those within are not disturbed.
func TestCallBounds(t *testing.T) {
	inMemory(t, func(o *Options) { o.MaxCalls, o.MaxCallBytes = 3, 100_000 }, func(t *testing.T, _ *rig, a, b *node) {
		b.serveEcho()
		release := make(chan struct{})
		b.Handle(methodWait, func(_ context.Context, _ From, body []byte) ([]byte, error) { <-release; return body, nil })
		var answers atomic.Int32
		to := Peer{ID: b.o.RaftID}
		send := func(size int) error {
			return a.Go(context.Background(), to, methodWait, make([]byte, size), func(b []byte, err error) {
				if err == nil && len(b) == size {
					answers.Add(1)
				}
			})
		}
		for _, size := range []int{1000, 60_000} {
			if err := send(size); err != nil {
				t.Fatal(err)
			}
		}
		for _, size := range []int{60_000, 200_000} {
			if err := send(size); !errors.Is(err, ErrNotSent) || fault.CodeOf(err) != fault.Overloaded {
				t.Errorf("beyond the bytes: %v", err)
			}
		}
		if err := send(10); err != nil {
			t.Fatal(err)
		}
		if err := send(10); !errors.Is(err, ErrNotSent) || fault.CodeOf(err) != fault.Overloaded {
			t.Errorf("beyond the number: %v", err)
		}
		close(release)
		eventually(t, "three answers", func() bool { return answers.Load() == 3 })
		if err := send(200_000); err != nil { // alone, any size goes
			t.Error(err)
		}
		eventually(t, "the large answer", func() bool { return answers.Load() == 4 })
	})
}

// A handler that blocks the link harms nobody else, and nothing hangs at the end.
func TestStopWithCallsUnderWay(t *testing.T) {
	inMemory(t, nil, func(t *testing.T, _ *rig, a, b *node) {
		w := b.serveWaiting()
		errs := make(chan error, 4)
		for range 2 {
			go func() {
				_, err := a.Call(context.Background(), Peer{ID: b.o.RaftID}, methodWait, nil)
				errs <- err
			}()
			<-w.started
		}
		a.stop()
		for range 2 {
			if err := <-errs; !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, errStopped) {
				t.Errorf("call under way: %v", err)
			}
			<-w.ended
		}
		if _, err := a.Call(context.Background(), Peer{ID: b.o.RaftID}, methodWait, nil); !errors.Is(err, ErrNotSent) {
			t.Errorf("call after the end: %v", err)
		}
		if _, err := a.Call(context.Background(), Peer{Addr: "b"}, methodWait, nil); !errors.Is(err, ErrNotSent) {
			t.Errorf("call after the end: %v", err)
		}
		a.Send(1, heartbeat(a, b, 1))
		go func() {
			_, err := b.Call(context.Background(), a.peer(), methodWait, nil)
			errs <- err
		}()
		if err := <-errs; !errors.Is(err, ErrNotSent) {
			t.Errorf("call to a node that has ended: %v", err)
		}
	})
}

// A reply stands in the memory that its caller lends, and the handler gets that of
// its own back.
func TestLentReplies(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		a, b := r.start("a", nil), r.start("b", nil)
		r.meet()
		sent := make(chan int, 3)
		memory := make([]byte, 100_000)
		b.HandleLent(methodEcho, func(_ context.Context, _ From, req []byte, respond Respond) {
			if len(req) == 0 {
				respond(nil, func() { sent <- 0 }, fault.NotLeader)
				return
			}
			n := copy(memory, bytes.Repeat(req, len(memory)))
			respond(memory[:n], func() { clear(memory); sent <- n }, nil)
		})
		type result struct {
			reply []byte
			err   error
		}
		got := make(chan result, 1)
		ask := func(req string, room func(int) []byte) result {
			t.Helper()
			done := func(reply []byte, err error) { got <- result{reply, err} }
			if err := a.GoInto(within(t, 20*time.Second), Peer{ID: b.o.RaftID}, methodEcho, []byte(req), room, done); err != nil {
				t.Fatal(err)
			}
			return <-got
		}
		lent := make([]byte, len(memory)+1)
		for _, req := range []string{"x", "y"} {
			x := ask(req, func(n int) []byte { return lent[:n] })
			if want := bytes.Repeat([]byte(req), len(memory)); x.err != nil || !bytes.Equal(lent[:len(memory)], want) || &x.reply[0] != &lent[0] {
				t.Errorf("%s: %d bytes, %v", req, len(x.reply), x.err)
			}
			if n := <-sent; n != len(memory) {
				t.Errorf("%d bytes were sent", n)
			}
		}
		x := ask("", func(int) []byte { t.Error("room for an error"); return nil })
		if fault.CodeOf(x.err) != fault.NotLeader || <-sent != 0 {
			t.Error(x.err)
		}
	})
}

func TestTwoHandlersPanic(t *testing.T) {
	inMemory(t, nil, func(t *testing.T, _ *rig, a, _ *node) {
		a.serveEcho()
		defer func() {
			if got := fmt.Sprint(recover()); got != "transport: method 1 has two handlers" {
				t.Error(got)
			}
		}()
		a.serveEcho()
	})
}
