package parked

import "encoding/binary"

// decoder takes integers off bytes. After a failure it yields zeros, so that
// the caller may check once at the end.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) fail() { d.failed, d.b = true, nil }

// uvarint takes an unsigned integer of at most max.
func (d *decoder) uvarint(max uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > max {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// varint takes a signed integer.
func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count takes a number of things that take size bytes or more each, and so
// bounds it by what there is.
func (d *decoder) count(size int) int {
	return int(d.uvarint(uint64(len(d.b) / size)))
}
