package delivery

import (
	"testing"

	"pgregory.net/rapid"
)

func TestCodecGolden(t *testing.T) {
	// Ids stand in consumers' logs and sets: the permutation must not change.
	c := NewCodec(0x0123456789abcdef, 0x1ff)
	for _, tt := range []struct {
		part   int32
		offset int64
		want   string
	}{
		{0, 0, "d2632f59d9d1f5ea"},
		{0, 1, "ac3fcd795b129a1d"},
		{MaxPartition, MaxOffset, "fb68b5856aad54fc"},
	} {
		if got := c.ID(tt.part, tt.offset).String(); got != tt.want {
			t.Errorf("ID(%d, %d) = %s, want %s", tt.part, tt.offset, got, tt.want)
		}
	}
}

func TestCodecIsABijection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		inc := rapid.Uint64().Draw(t, "incarnation")
		part := rapid.Int32Range(0, MaxPartition).Draw(t, "partition")
		offset := rapid.Int64Range(0, MaxOffset).Draw(t, "offset")
		c := NewCodec(seed, inc)
		id := c.ID(part, offset)
		gotPart, gotOffset, ok := c.Parse(id)
		if !ok || gotPart != part || gotOffset != offset {
			t.Fatalf("Parse(%s) = %d, %d, %v, want %d, %d", id, gotPart, gotOffset, ok, part, offset)
		}
		if _, _, ok := NewCodec(seed, inc+1).Parse(id); ok {
			t.Fatalf("%s is valid in the next incarnation", id)
		}
	})
}

func TestMixIsInvertible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.Uint64().Draw(t, "x")
		if got := unmix(mix(x)); got != x {
			t.Fatalf("unmix(mix(%x)) = %x", x, got)
		}
		if got := mix(unmix(x)); got != x {
			t.Fatalf("mix(unmix(%x)) = %x", x, got)
		}
	})
}

// FuzzCodecParse: what Parse accepts is the one id of its message.
func FuzzCodecParse(f *testing.F) {
	first := NewCodec(1, 2).ID(3, 4)
	f.Add(uint64(1), uint64(2), first[:])
	f.Add(uint64(0), uint64(0), []byte("0123456789abcdef"))
	f.Add(uint64(0), uint64(0), []byte("0123456789ABCDEF"))
	f.Fuzz(func(t *testing.T, seed, inc uint64, b []byte) {
		if len(b) != len(ID{}) {
			return
		}
		c := NewCodec(seed, inc)
		part, offset, ok := c.Parse(ID(b))
		if !ok {
			return
		}
		if part < 0 || part > MaxPartition || offset < 0 || offset > MaxOffset {
			t.Fatalf("Parse(%q) = %d, %d", b, part, offset)
		}
		if got := c.ID(part, offset); got != ID(b) {
			t.Fatalf("%q is read as %s", b, got)
		}
	})
}

func BenchmarkCodec(b *testing.B) {
	c := NewCodec(1, 2)
	var sum int64
	for i := int64(0); b.Loop(); i++ {
		_, o, _ := c.Parse(c.ID(1, i))
		sum += o
	}
	_ = sum
}
