package bench

import "sync/atomic"

// Progress tells an onlooker how far a run is. The zero value is ready; a nil
// one is nobody looking. It may be read while the run goes on.
type Progress struct {
	where atomic.Pointer[string] // in a larger whole
	label atomic.Pointer[string]
	done  atomic.Int64
	total atomic.Int64
}

// begin names a phase of total messages; 0 is unknown.
func (p *Progress) begin(label string, total int64) {
	if p == nil {
		return
	}
	p.label.Store(&label)
	p.total.Store(total)
	p.done.Store(0)
}

// prefix says where in a larger whole the following phases are.
func (p *Progress) prefix(where string) {
	if p != nil {
		p.where.Store(&where)
	}
}

func (p *Progress) add(n int) {
	if p != nil {
		p.done.Add(int64(n))
	}
}

// At returns the phase, what is done of it, and what there is to do (0 when
// that is not known).
func (p *Progress) At() (label string, done, total int64) {
	if l := p.label.Load(); l != nil {
		label = *l
	}
	if w := p.where.Load(); w != nil {
		label = *w + ": " + label
	}
	return label, p.done.Load(), p.total.Load()
}
