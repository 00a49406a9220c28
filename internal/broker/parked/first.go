package parked

import "container/heap"

// First calls fn for up to n entries that are not out, earliest due first, until
// fn returns false. It changes nothing; it may read one chunk of each run.
func (s *Set) First(n int, fn func(Entry) bool) error {
	side := Set{fs: s.fs, dir: s.dir, prefix: s.prefix, tombs: s.tombs}
	for _, r := range s.runs {
		side.runs = append(side.runs, r.fork())
	}
	heap.Init(&side.runs)
	mem := frontier{of: s.queue}
	if len(s.queue) > 0 {
		mem.at = append(mem.at, 0)
	}
	for n > 0 {
		r := side.topRun()
		if side.err != nil {
			return side.err
		}
		var e Entry
		switch next, ok := mem.peek(); {
		case r != nil && (!ok || r.head.before(next)):
			e = r.head
			skip := s.stale(r)
			side.step(r)
			if skip {
				continue
			}
		case ok:
			e = next
			mem.pop()
		default:
			return nil
		}
		if !fn(e) {
			return nil
		}
		n--
	}
	return nil
}

// frontier walks a heap in its order without changing it: the next entry is
// always among the children of those that were taken.
type frontier struct {
	of queue
	at []int // places in of: a heap by entry
}

func (f *frontier) Len() int           { return len(f.at) }
func (f *frontier) Less(i, j int) bool { return f.of[f.at[i]].before(f.of[f.at[j]].Entry) }
func (f *frontier) Swap(i, j int)      { f.at[i], f.at[j] = f.at[j], f.at[i] }
func (f *frontier) Push(x any)         { f.at = append(f.at, x.(int)) }

func (f *frontier) Pop() any {
	last := f.at[len(f.at)-1]
	f.at = f.at[:len(f.at)-1]
	return last
}

func (f *frontier) peek() (Entry, bool) {
	if len(f.at) == 0 {
		return Entry{}, false
	}
	return f.of[f.at[0]].Entry, true
}

func (f *frontier) pop() {
	i := heap.Pop(f).(int)
	for _, child := range [2]int{2*i + 1, 2*i + 2} {
		if child < len(f.of) {
			heap.Push(f, child)
		}
	}
}
