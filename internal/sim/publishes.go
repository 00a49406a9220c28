package sim

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/record"
)

// noiseSize is more than the largest message.
const noiseSize = 512 << 10

// noise is what messages are filled with.
var noise = func() []byte {
	b := make([]byte, noiseSize+4096)
	rng := rand.New(rand.NewPCG(7, 7))
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	return b
}()

// bodyMin is the smallest body: it names its publish and place.
const bodyMin = 8

// pub is a publish as the client knows it. Everything about its messages
// follows from it.
type pub struct {
	id       uint32 // its place in Sim.pubs
	key      partition.Key
	count    int
	size     int   // of each body
	due      int64 // unix ns; 0: none
	dueEvery int   // which messages have it
	life     int   // in which it was made

	logged   bool  // in the log, or refused by an entry in the log
	refused  bool  // its partition was closed
	base     int64 // of its first message in the log
	answered bool
}

// dueOf is the due time of a message, or 0.
func (p *pub) dueOf(i int) int64 {
	if p.due == 0 || i%p.dueEvery != 0 {
		return 0
	}
	return p.due
}

func (p *pub) keyOf(i int) []byte {
	if p.id%4 != 1 {
		return nil
	}
	return noise[i%64 : i%64+int(p.id%23)]
}

func (p *pub) idOf(i int) []byte {
	if p.id%8 != 2 {
		return nil
	}
	return noise[100+i%64 : 100+i%64+9]
}

func (p *pub) fill(i int) []byte {
	at := (int(p.id)*31 + i*7) % 4096
	return noise[at : at+p.size-bodyMin]
}

// messages builds what is published.
func (p *pub) messages() []partition.Message {
	msgs := make([]partition.Message, p.count)
	bodies := make([]byte, 0, p.count*p.size)
	for i := range msgs {
		at := len(bodies)
		bodies = binary.BigEndian.AppendUint32(bodies, p.id)
		bodies = binary.BigEndian.AppendUint16(bodies, uint16(i))
		bodies = binary.BigEndian.AppendUint16(bodies, uint16(p.count))
		bodies = append(bodies, p.fill(i)...)
		msgs[i] = partition.Message{Body: bodies[at:], Key: p.keyOf(i), ID: p.idOf(i), DueNs: p.dueOf(i)}
	}
	return msgs
}

// nameOf reads which message a body is.
func nameOf(body []byte) (id uint32, place int, ok bool) {
	if len(body) < bodyMin {
		return 0, 0, false
	}
	return binary.BigEndian.Uint32(body), int(binary.BigEndian.Uint16(body[4:])), true
}

// holds reports whether a record is the publish's message i, to the byte.
func (p *pub) holds(i int, r *record.Record) bool {
	if len(r.Value) != p.size || int(binary.BigEndian.Uint16(r.Value[6:])) != p.count ||
		!bytes.Equal(r.Value[bodyMin:], p.fill(i)) || !bytes.Equal(r.Key, p.keyOf(i)) {
		return false
	}
	name, _ := r.Header(record.HeaderID)
	due, _ := r.Due()
	return bytes.Equal(name, p.idOf(i)) && due == p.dueOf(i)
}
