package meta

import (
	"fmt"
	"io"

	"github.com/tidings-io/tidings/internal/shard"
)

// The metadata is carried to another replica as a whole, in the encoding of a
// checkpoint.

var _ shard.Portable = (*Machine)(nil)

// Have is nothing: the state is small.
func (m *Machine) Have() []byte { return nil }

// Export is the view: it is immutable.
func (m *Machine) Export(uint64, []byte) (shard.Export, error) {
	return &export{rest: m.View().encode()}, nil
}

// export implements shard.Export.
type export struct{ rest []byte }

func (x *export) Size() int64 { return int64(len(x.rest)) }

func (x *export) Next(buf []byte, maxBytes int) ([]byte, error) {
	n := min(len(x.rest), max(maxBytes, 1))
	if n == 0 {
		return buf, io.EOF
	}
	buf, x.rest = append(buf, x.rest[:n]...), x.rest[n:]
	return buf, nil
}

func (x *export) Close() {}

// Import gathers the state in memory.
func (m *Machine) Import(string) shard.Import { return &gathered{} }

// gathered implements shard.Import.
type gathered struct{ state []byte }

func (g *gathered) Put(chunk []byte) error {
	g.state = append(g.state, chunk...)
	return nil
}

func (g *gathered) Sync() error {
	if _, err := decodeView(g.state); err != nil {
		return fmt.Errorf("take metadata: %w", err)
	}
	return nil
}

func (g *gathered) Install(uint64) ([]byte, error) { return g.state, nil }
func (g *gathered) Fail()                          {}
func (g *gathered) Published()                     {}
func (g *gathered) Discard() error                 { return nil }

// Replace sets another replica's state, as Restore does.
func (m *Machine) Replace(index uint64, state []byte) error { return m.Restore(index, state) }
