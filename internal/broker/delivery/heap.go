package delivery

// offsetHeap is a binary heap of offsets, lowest first. container/heap would
// box every offset.
type offsetHeap []int64

// push adds o.
func (h *offsetHeap) push(o int64) {
	s := append(*h, o)
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 2
		if s[up] <= o {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = o
	*h = s
}

// pop removes the lowest; the heap is not empty.
func (h *offsetHeap) pop() int64 {
	s := *h
	low, last := s[0], s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	if len(s) == 0 {
		return low
	}
	i := 0
	for {
		kid := 2*i + 1
		if kid >= len(s) {
			break
		}
		if kid+1 < len(s) && s[kid+1] < s[kid] {
			kid++
		}
		if last <= s[kid] {
			break
		}
		s[i] = s[kid]
		i = kid
	}
	s[i] = last
	return low
}
