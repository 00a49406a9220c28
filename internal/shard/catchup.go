package shard

import (
	"context"
	"errors"
	"io"
)

// Puller opens transfer sessions at other replicas.
type Puller interface {
	// Pull begins a session at the replica with that Raft id, whose Serve is
	// given the request.
	Pull(ctx context.Context, shard uint32, replica uint64, request []byte) (Source, error)
}

// Source yields the chunks of a session.
type Source interface {
	// Next is the next chunk, good until the following call.
	Next(ctx context.Context) ([]byte, error)
	// Close ends the session and tells the other side whether the state was
	// installed. It is called once.
	Close(installed bool)
}

// CatchUp runs a session from its beginning to its end: what a node does, on a
// goroutine of its own, when it was told by Options.Behind. It returns nil when
// the state is installed. After an error nothing has changed; the next Behind
// tries again.
func (g *Group) CatchUp(ctx context.Context, leader uint64, p Puller) (err error) {
	// The loop answers at once: nothing is left behind without an owner.
	in, err := await(context.WithoutCancel(ctx), g, func(done func(*Incoming, error)) { g.Import(leader, done) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Abort()) }()
	source, err := p.Pull(ctx, g.o.ID, leader, in.Request())
	if err != nil {
		return err
	}
	installed := false
	defer func() { source.Close(installed) }()
	for whole := false; !whole; {
		chunk, err := source.Next(ctx)
		if err != nil {
			return err
		}
		if whole, err = in.Put(chunk); err != nil {
			return err
		}
	}
	if err := in.Sync(); err != nil {
		return err
	}
	// From here on there is no way back but through the loop.
	_, err = await(context.WithoutCancel(ctx), g, func(done func(struct{}, error)) {
		in.Install(func(err error) { done(struct{}{}, err) })
	})
	installed = err == nil
	return err
}

// Serve runs a session on the side that sends: request is what the other
// replica's Pull was given, send hands a chunk over and waits until there is
// room for more, and ended waits for the other side's Close and tells what it
// was told. The chunk is good during the call only. It sends no faster than
// Options.SendLimit allows.
func (g *Group) Serve(ctx context.Context, replica uint64, request []byte, send func([]byte) error, ended func() (installed bool)) error {
	out, err := await(context.WithoutCancel(ctx), g, func(done func(*Outgoing, error)) { g.Export(replica, request, done) })
	if err != nil {
		return err
	}
	installed := false
	defer func() { out.Close(installed) }()
	var buf []byte
	for {
		buf, err = out.Next(buf[:0])
		if errors.Is(err, io.EOF) {
			installed = ended()
			return nil
		}
		if err != nil {
			return err
		}
		if err := g.o.SendLimit.Wait(ctx, len(buf)); err != nil {
			return err
		}
		if err := send(buf); err != nil {
			return err
		}
	}
}

// await waits for what a call answers on the loop.
func await[T any](ctx context.Context, g *Group, call func(done func(T, error))) (T, error) {
	var value T
	answer := make(chan error, 1)
	got := make(chan T, 1)
	call(func(v T, err error) {
		got <- v
		answer <- err
	})
	if err := g.wait(ctx, answer); err != nil {
		return value, err
	}
	return <-got, nil
}
