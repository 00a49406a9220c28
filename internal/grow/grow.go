// Package grow has a list that only grows, for readers that take no lock.
package grow

import (
	"slices"
	"sync"
	"sync/atomic"
)

// List only grows. The zero value is empty. All methods may be called from any
// goroutine.
type List[T any] struct {
	mu   sync.Mutex // held by who adds
	list atomic.Pointer[[]T]
}

// All is the list at this moment. The slice is shared: do not change it.
func (l *List[T]) All() []T {
	if p := l.list.Load(); p != nil {
		return *p
	}
	return nil
}

// At returns an element, and false when the list has none there.
func (l *List[T]) At(i int) (v T, ok bool) {
	all := l.All()
	if i < 0 || i >= len(all) {
		return v, false
	}
	return all[i], true
}

// Len is how many there are.
func (l *List[T]) Len() int { return len(l.All()) }

// Add puts an element behind the last one. It copies the list.
func (l *List[T]) Add(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := append(slices.Clip(l.All()), v)
	l.list.Store(&next)
}
