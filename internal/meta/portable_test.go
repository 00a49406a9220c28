package meta

import (
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A replica that gets another's state shows the same view, and its watchers are
// told of the change as a whole.
func TestStateIsCarriedToAnotherReplica(t *testing.T) {
	source := newLoop(t, Options{})
	source.channel(source.create("orders").ID, "billing")
	from := source.m
	to, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	changes := 0
	to.Watch(func(_, now *View) {
		if now.Formed() {
			changes++
		}
	})
	x, err := from.Export(7, to.Have())
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	in := to.Import("staging")
	chunks := 0
	for {
		chunk, err := x.Next(nil, 16)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || len(chunk) > 16 {
			t.Fatalf("a chunk of %d bytes: %v", len(chunk), err)
		}
		if err := in.Put(chunk); err != nil {
			t.Fatal(err)
		}
		chunks++
	}
	if err := in.Sync(); err != nil || chunks < 2 {
		t.Fatalf("%d chunks: %v", chunks, err)
	}
	state, err := in.Install(7)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Replace(7, state); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(from.View().encode(), to.View().encode()); diff != "" {
		t.Error(diff)
	}
	if changes != 1 {
		t.Errorf("watchers were told %d times", changes)
	}
	broken := to.Import("staging")
	if err := broken.Put(state[:len(state)/2]); err != nil {
		t.Fatal(err)
	}
	if err := broken.Sync(); err == nil {
		t.Error("half a state passes")
	}
}
