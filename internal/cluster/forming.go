package cluster

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// FormingOptions of a Forming. Zero values mean the default beside the field.
type FormingOptions struct {
	Former  *Former
	Network Network
	// Save makes an identity durable before it returns. Its error ends Run.
	Save   func(Identity) error
	Clock  func() int64 // ns, only rising; default the system's
	Logger *slog.Logger // default: discards
}

// Forming runs a Former until the node belongs to a cluster.
type Forming struct {
	o       FormingOptions
	served  chan served
	answers chan answered
	ended   chan struct{}

	mu     sync.Mutex
	status Status
}

type served struct {
	from    string
	method  Method
	request []byte
	reply   chan<- answered
}

type answered struct {
	id   uint64
	body []byte
	err  error
}

// NewForming returns a Forming that Run starts. The Former is its own from then
// on.
func NewForming(o FormingOptions) *Forming {
	if o.Clock == nil {
		o.Clock = clock()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Forming{
		o: o, served: make(chan served), answers: make(chan answered), ended: make(chan struct{}),
		status: FormingStatus(o.Former),
	}
}

// Status says what the node waits for.
func (f *Forming) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// Serve answers a request of the node named from, which is the name in its
// certificate: Hello and Form, other methods are refused with ErrMethod. It
// goes on after Run has ended with a formed node, until the Agent takes over.
func (f *Forming) Serve(ctx context.Context, from string, m Method, request []byte) ([]byte, error) {
	reply := make(chan answered, 1)
	select {
	case f.served <- served{from, m, request, reply}:
	case <-f.ended:
		f.mu.Lock() // Run has let go of the Former
		defer f.mu.Unlock()
		if !f.o.Former.Formed() {
			return nil, ErrMethod
		}
		out, err := f.o.Former.Serve(f.o.Clock(), from, m, request, nil)
		return out.Reply, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	a := <-reply // the loop always answers
	return a.body, a.err
}

// Run asks, answers and writes until the node belongs to a cluster; it returns
// what is then durable. It ends with ctx, or when a write fails: the node must
// stop then.
func (f *Forming) Run(ctx context.Context) (Identity, error) {
	defer close(f.ended)
	ctx, cancel := context.WithCancel(ctx)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	former := f.o.Former
	for !former.Formed() {
		var out Output
		var reply chan<- answered
		var err error
		select {
		case <-ctx.Done():
			return former.Identity(), ctx.Err()
		case s := <-f.served:
			reply = s.reply
			out, err = former.Serve(f.o.Clock(), s.from, s.method, s.request, nil)
		case a := <-f.answers:
			out = former.Answered(f.o.Clock(), a.id, a.body, a.err)
		case <-timer.C:
			out = former.Tick(f.o.Clock())
		}
		for err == nil && out.Write != nil {
			if err = f.o.Save(*out.Write); err != nil {
				if reply != nil {
					reply <- answered{err: err}
				}
				return former.Identity(), err
			}
			out = former.Saved(f.o.Clock())
		}
		if reply != nil {
			reply <- answered{body: out.Reply, err: err}
		}
		for _, c := range out.Calls {
			calls.Go(func() { f.call(ctx, c) })
		}
		if out.Next != never && err == nil {
			timer.Reset(time.Duration(max(0, out.Next-f.o.Clock())))
		}
		f.report()
	}
	return former.Identity(), nil
}

func (f *Forming) call(ctx context.Context, c Call) {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := f.o.Network.Call(limited, c.To, c.Method, c.Request)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("no answer in " + callTimeout.String())
	}
	select {
	case f.answers <- answered{id: c.ID, body: body, err: err}:
	case <-ctx.Done():
	}
}

// report publishes the status, and logs it when it has changed.
func (f *Forming) report() {
	s := FormingStatus(f.o.Former)
	f.mu.Lock()
	changed := s.Stage != f.status.Stage || !slices.Equal(s.Notes, f.status.Notes)
	f.status = s
	f.mu.Unlock()
	if !changed {
		return
	}
	for _, note := range s.Notes {
		f.o.Logger.Info(note, "cluster", s.Cluster, "stage", s.Stage)
	}
}
