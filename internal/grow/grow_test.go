package grow_test

import (
	"sync"
	"testing"

	"github.com/tidings-io/tidings/internal/grow"
)

func TestList(t *testing.T) {
	var l grow.List[int]
	if _, ok := l.At(0); ok || l.Len() != 0 || l.All() != nil {
		t.Fatal("an empty list has something")
	}
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for l.Len() < 100 {
				for i, v := range l.All() {
					if v != i {
						t.Errorf("%d stands at %d", v, i)
						return
					}
				}
			}
		})
	}
	before := l.All()
	for i := range 100 {
		l.Add(i)
	}
	readers.Wait()
	if v, ok := l.At(99); !ok || v != 99 || len(before) != 0 {
		t.Errorf("%d, %t", v, ok)
	}
	if _, ok := l.At(-1); ok {
		t.Error("there is something before the first")
	}
}
