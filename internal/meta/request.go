package meta

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/tidings-io/tidings/internal/fault"
)

// A request is a command with the name of who asks: the boot id of a process,
// and a number that it gives out once. The state remembers which numbers are
// done, so that a request whose outcome is unknown may be sent again, to
// another leader too.
//
// On a wire, after the format 1, and as the payload of a Request command:
//
//	origin   boot id of the process that asks
//	number   of the request, counted from 1
//	low      all numbers below it have been answered; none of them comes again
//	kind, version, length of the payload, payload
//
// An answer, behind the format 1:
//
//	code     name of the fault; "OK": none
//	text     of the fault
//	index    of the entry that answered it, 0: none did
//	topic    id, channel id; 0: none
const requestFormat, answerFormat = 1, 1

const (
	// requestWindow is how far the numbers of one process may lie apart: how
	// much the state remembers of it.
	requestWindow = 1024
	// maxOrigins is how many processes are remembered.
	maxOrigins = 64
	// MaxRequest is the size of a request or answer, in bytes.
	MaxRequest = 64 << 10
)

// ErrRequest says that a request or an answer cannot be read.
var ErrRequest = errors.New("malformed metadata request")

// origin is what is remembered of a process that asks; immutable.
type origin struct {
	Boot uint64
	Last uint64 // index of its last request
	Low  uint64 // numbers below are answered
	Done []done // by number, all from Low on
}

// done is a request that succeeded, and what it made or found.
type done struct{ Number, Topic, Channel uint64 }

func findOrigin(list []*origin, boot uint64) (int, bool) {
	return slices.BinarySearchFunc(list, boot, func(o *origin, boot uint64) int { return cmp.Compare(o.Boot, boot) })
}

func (o *origin) find(number uint64) (int, bool) {
	return slices.BinarySearchFunc(o.Done, number, func(d done, number uint64) int { return cmp.Compare(d.Number, number) })
}

// request applies a command that came under a number, unless it is done.
func (c *change) request(cmd *command, index uint64, now int64) result {
	req := cmd.Request
	low := req.Low
	if i, ok := findOrigin(c.view.origins, req.Origin); ok {
		o := c.view.origins[i]
		low = max(low, o.Low)
		if k, ok := o.find(req.Number); ok {
			return c.view.outcome(req.Inner.Kind, o.Done[k].Topic, o.Done[k].Channel)
		}
	}
	if req.Number < low || req.Number-low >= requestWindow {
		return result{err: fault.New(fault.Timeout, "request %d of process %x: it is not one of those from %d on that may come", req.Number, req.Origin, low)}
	}
	r := c.apply(&req.Inner, index, now)
	if r.err != nil {
		return r // nothing happened: it may as well be tried again
	}
	d := done{Number: req.Number}
	if r.topic != nil {
		d.Topic = r.topic.ID
	}
	if r.channel != nil {
		d.Channel = r.channel.ID
	}
	c.remember(req.Origin, low, index, d)
	return r
}

// outcome is what a command of that kind made or found, as the view has it now.
func (v *View) outcome(k kind, topic, channel uint64) (r result) {
	t, ok := v.TopicID(topic)
	if !ok {
		if k == kindCreateTopic || k == kindCreateChannel {
			r.err = fault.TopicNotFound // it was there, and has gone since
		}
		return r
	}
	r.topic = t
	if channel == 0 {
		return r
	}
	if r.channel, ok = t.ChannelID(channel); !ok && k == kindCreateChannel {
		r.err = fault.ChannelNotFound
	}
	return r
}

// remember notes a request as done and forgets those below low.
func (c *change) remember(boot, low, index uint64, d done) {
	o := c.origin(boot)
	o.Last = index
	if low > o.Low {
		o.Low = low
		i, _ := o.find(low)
		o.Done = slices.Delete(o.Done, 0, i)
	}
	i, _ := o.find(d.Number)
	o.Done = slices.Insert(o.Done, i, d)
}

// origin returns a process's table for changing, making it when it is new: the
// one that asked least recently makes room.
func (c *change) origin(boot uint64) *origin {
	c.touched = true
	if o := c.origins[boot]; o != nil {
		return o
	}
	if c.origins == nil {
		c.origins = make(map[uint64]*origin)
		c.view.origins = slices.Clone(c.view.origins)
	}
	i, ok := findOrigin(c.view.origins, boot)
	o := &origin{Boot: boot}
	if ok {
		*o = *c.view.origins[i]
		o.Done = slices.Clone(o.Done)
		c.view.origins[i] = o
	} else {
		if len(c.view.origins) == maxOrigins {
			c.forget(slices.MinFunc(c.view.origins, func(a, b *origin) int { return cmp.Compare(a.Last, b.Last) }).Boot)
			i, _ = findOrigin(c.view.origins, boot)
		}
		c.view.origins = slices.Insert(c.view.origins, i, o)
	}
	c.origins[boot] = o
	return o
}

// forget drops what is remembered of a process that is gone.
func (c *change) forget(boot uint64) {
	i, ok := findOrigin(c.view.origins, boot)
	if !ok {
		return
	}
	c.touched = true
	delete(c.origins, boot)
	c.view.origins = slices.Concat(c.view.origins[:i], c.view.origins[i+1:])
}

// appendRequest encodes a command that is sent to the node that leads.
func appendRequest(b []byte, c *command) []byte { return c.payload(append(b, requestFormat)) }

// decodeRequest reads one; fault.Unsupported for what this program does not
// know, which must not get into the log.
func decodeRequest(b []byte) (command, error) {
	c := command{Kind: kindRequest}
	if len(b) == 0 || len(b) > MaxRequest {
		return c, fault.Wrap(fault.InvalidRequest, fmt.Errorf("read request of %d bytes: %w", len(b), ErrRequest))
	}
	if b[0] != requestFormat {
		return c, fault.New(fault.Unsupported, "read request: format %d is not known to this program", b[0])
	}
	r := reader{b: b[1:]}
	if err := r.request(&c); err != nil {
		return c, fault.Wrap(fault.Unsupported, err)
	}
	if r.bad || len(r.b) > 0 {
		return c, fault.Wrap(fault.InvalidRequest, fmt.Errorf("read request: %w", ErrRequest))
	}
	return c, nil
}

// answer is what a request got, on its way back to who asked.
type answer struct {
	err            error
	index          uint64
	topic, channel uint64
}

func (r result) answer() answer {
	a := answer{err: r.err, index: r.index}
	if r.topic != nil {
		a.topic = r.topic.ID
	}
	if r.channel != nil {
		a.channel = r.channel.ID
	}
	return a
}

func (a answer) encode() []byte {
	code, text := fault.CodeOf(a.err), ""
	if a.err != nil {
		text = a.err.Error()
		text = text[:min(len(text), 1000)]
	}
	b := appendString([]byte{answerFormat}, code.String())
	b = appendString(b, text)
	return appendUints(b, a.index, a.topic, a.channel)
}

func decodeAnswer(b []byte) (answer, error) {
	if len(b) == 0 || len(b) > MaxRequest || b[0] != answerFormat {
		return answer{}, fmt.Errorf("read answer of %d bytes: %w", len(b), ErrRequest)
	}
	r := reader{b: b[1:]}
	code, text := r.string(), r.string()
	a := answer{index: r.uint(), topic: r.uint(), channel: r.uint()}
	if r.bad || len(r.b) > 0 {
		return answer{}, fmt.Errorf("read answer: %w", ErrRequest)
	}
	if c := faultNamed(code); c != fault.None {
		a.err = &fault.Error{Code: c, Text: text}
	}
	return a, nil
}

// Refusal is the answer to a request that this node cannot take: the encoded
// form of err.
func Refusal(err error) []byte { return answer{err: err}.encode() }

// Refused returns the error that an answer carries, nil for none: whoever
// forwards requests sees whether the node that it asked leads (fault.NotLeader:
// it does not, or lost it before it knew the outcome; ask again).
func Refused(encoded []byte) error {
	a, err := decodeAnswer(encoded)
	if err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	return a.err
}

var faultNames = sync.OnceValue(func() map[string]fault.Code {
	names := make(map[string]fault.Code)
	for c := range 256 {
		names[fault.Code(c).String()] = fault.Code(c)
	}
	return names
})

// faultNamed is the code of that name; Internal for one that is not known here.
func faultNamed(name string) fault.Code {
	if c, ok := faultNames()[name]; ok {
		return c
	}
	return fault.Internal
}
