package nsq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/fault"
)

// refusal is an error frame; the connection closes behind it.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

// refuse makes an error frame of a code and a text.
func refuse(code, format string, args ...any) error {
	return &refusal{code + " " + fmt.Sprintf(format, args...)}
}

// publishRefusal is the error frame for a publish that the broker refused.
func publishRefusal(command string, err error) error {
	code := fault.CodeOf(err)
	switch code {
	case fault.DiskReserve:
		return refuse("E_"+command+"_FAILED", "%s", code.Error())
	case fault.NotLeader, fault.Unsupported: // says whether the outcome is known, or where the topic lives
		return refuse("E_"+command+"_FAILED", "%s failed %s", command, err.Error())
	}
	return refuse("E_"+command+"_FAILED", "%s failed %s", command, code.Error())
}

// states is a set of connection states.
type states uint8

const (
	inInit       states = 1 << stateInit
	inSubscribed states = 1 << stateSubscribed
	inClosing    states = 1 << stateClosing
	inAny               = inInit | inSubscribed | inClosing
)

// command is a row of the command table.
type command struct {
	name   string
	in     states // where it is allowed
	words  int    // how many words must follow its name
	called string // what nsqd calls them in its error text
	// run handles the command; w[0] is its name. A *refusal closes the
	// connection.
	run func(c *conn, w [][]byte) error
}

// commands is the protocol: what each command is called, where it is allowed
// and what follows it. A state is checked before the words.
var commands map[string]*command

func init() {
	commands = make(map[string]*command)
	for _, cmd := range []command{
		{"IDENTIFY", inInit, 0, "", identify},
		{"AUTH", inInit, 0, "", authenticate},
		{"SUB", inInit, 0, "", sub}, // looks at heartbeats before words
		{"RDY", inSubscribed | inClosing, 0, "", rdy},
		{"FIN", inSubscribed | inClosing, 1, "params", fin},
		{"REQ", inSubscribed | inClosing, 2, "params", req},
		{"TOUCH", inSubscribed | inClosing, 1, "params", touch},
		{"CLS", inSubscribed, 0, "", cls},
		{"NOP", inAny, 0, "", nop},
		{"PUB", inAny, 1, "parameters", pub},
		{"MPUB", inAny, 1, "parameters", mpub},
		{"DPUB", inAny, 2, "parameters", dpub},
	} {
		commands[cmd.name] = &cmd
	}
}

// wordsMax is how many words of a line are looked at; more are ignored.
const wordsMax = 16

// splitWords cuts a line at single spaces, as nsqd does: two spaces have an
// empty word between them.
func splitWords(dst [][]byte, line []byte) [][]byte {
	for len(dst) < wordsMax {
		i := bytes.IndexByte(line, ' ')
		if i < 0 {
			return append(dst, line)
		}
		dst = append(dst, line[:i:i])
		line = line[i+1:]
	}
	return dst
}

// execute handles one command line. Its words stay valid until the command
// reads from the client again.
func (c *conn) execute(line []byte) error {
	c.words = splitWords(c.words[:0], line)
	w := c.words
	if c.needsTLS && string(w[0]) != "IDENTIFY" {
		return refuse("E_INVALID", "cannot %s in current state (TLS required)", w[0])
	}
	if string(w[0]) != c.command.name { // most clients say the same all the time
		known, ok := commands[string(w[0])]
		if !ok {
			return refuse("E_INVALID", "invalid command %s", w[0])
		}
		c.command = known
	}
	cmd := c.command
	if cmd.in&(1<<c.state.Load()) == 0 {
		return refuse("E_INVALID", "cannot %s in current state", w[0])
	}
	if len(w) <= cmd.words {
		return refuse("E_INVALID", "%s insufficient number of %s", w[0], cmd.called)
	}
	return cmd.run(c, w)
}

func nop(*conn, [][]byte) error { return nil }

func cls(c *conn, _ [][]byte) error {
	if err := c.settle(); err != nil {
		return err
	}
	c.sub.Load().Stop()
	c.state.Store(stateClosing)
	return c.answer(closeWaitFrame)
}

// sub opens the subscription. Between the deletion of an ephemeral channel or
// topic and its end it tries once more.
func sub(c *conn, w [][]byte) error {
	if c.interval.Load() <= 0 {
		return refuse("E_INVALID", "cannot SUB with heartbeats disabled")
	}
	if len(w) < 3 {
		return refuse("E_INVALID", "SUB insufficient number of parameters")
	}
	if !validName(w[1]) {
		return refuse("E_BAD_TOPIC", "SUB topic name %q is not valid", w[1])
	}
	if !validName(w[2]) {
		return refuse("E_BAD_CHANNEL", "SUB channel name %q is not valid", w[2])
	}
	s := &subscribed{topic: string(w[1]), channel: string(w[2])}
	if err := c.authorize("SUB", s.topic, s.channel); err != nil {
		return err
	}
	if err := c.settle(); err != nil {
		return err
	}
	opts := delivery.SubOptions{
		MsgTimeout:    c.pump.msgTimeout,
		MaxMsgTimeout: c.front.o.MaxMsgTimeout,
		SampleRate:    int(c.pump.sampleRate),
		Notify:        c.ring,
		Client:        c.remote,
		Failed:        c.answerFailed,
	}
	var err error
	s.Subscription, err = c.front.broker.Subscribe(c.ctx, s.topic, s.channel, opts)
	if fault.CodeOf(err) == fault.Deleting {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-c.ctx.Done():
		}
		s.Subscription, err = c.front.broker.Subscribe(c.ctx, s.topic, s.channel, opts)
	}
	if err != nil {
		return subRefusal(c, s, err)
	}
	c.state.Store(stateSubscribed)
	c.sub.Store(s) // before the answer: who has it finds itself in /stats; the connection's end closes it
	if err := c.add(reply{frame: okFrame, change: &change{sub: s}}); err != nil {
		return err
	}
	if c.drainEnd.Load() != 0 { // drain has not seen it
		s.Stop()
	}
	return nil
}

func subRefusal(c *conn, s *subscribed, err error) error {
	switch code := fault.CodeOf(err); code {
	case fault.TooManyConsumers:
		c.front.metrics.consumersRefused.Add(1)
		return refuse("E_SUB_FAILED", "SUB failed consumers for %s:%s exceeds limit of %d", s.topic, s.channel, c.front.o.MaxChannelConsumers)
	case fault.Deleting:
		return refuse("E_SUB_FAILED", "SUB failed to deleted topic/channel")
	case fault.NotLeader, fault.Unsupported: // perhaps where the topic lives, or that nothing is consumed here
		return refuse("E_SUB_FAILED", "SUB failed %s", err.Error())
	default:
		return refuse("E_SUB_FAILED", "SUB failed %s", code.Error())
	}
}

// rdy sets the window: lower at once, higher after the answers before it.
func rdy(c *conn, w [][]byte) error {
	if c.state.Load() == stateClosing {
		return nil
	}
	n := int64(1)
	if len(w) > 1 {
		v, ok := parseUint(w[1])
		if !ok {
			return refuse("E_INVALID", "RDY could not parse count %s", w[1])
		}
		n = int64(min(v, 1<<62))
	}
	if n > c.front.o.MaxRdyCount {
		return refuse("E_INVALID", "RDY count %d out of range 0-%d", n, c.front.o.MaxRdyCount)
	}
	if n < c.ready {
		c.raise = -1
		c.sub.Load().SetWindow(int(n))
	} else {
		c.raise = n
	}
	c.ready = n
	return nil
}

// finBytes is the length of a FIN as nearly all clients send it.
const finBytes = len("FIN ") + len(delivery.ID{}) + len("\n")

// finishes gathers the FINs that come next in the read buffer, without looking
// at each as at any command: what has another form than nearly all have is left
// where it is.
func (c *conn) finishes() error {
	if (inSubscribed|inClosing)&(1<<c.state.Load()) == 0 {
		return nil
	}
	for {
		b := c.in.buf[c.in.r:c.in.w]
		if len(b) < finBytes || string(b[:4]) != "FIN " || b[finBytes-1] != '\n' || !printable(b[4:finBytes-1]) {
			return nil
		}
		if len(c.group.msgs) > 0 || len(c.ops) >= answersMax {
			if err := c.settle(); err != nil {
				return err
			}
		}
		c.ops = append(c.ops, delivery.Op{Kind: delivery.Finish, ID: delivery.ID(b[4:])})
		c.in.r += finBytes
	}
}

// printable reports whether no byte of a message id is a space or a control
// character, eight at a time: bytes below 33 borrow from their top bit.
func printable(id []byte) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	a, b := binary.LittleEndian.Uint64(id), binary.LittleEndian.Uint64(id[8:])
	return ((a-33*ones)&^a|(b-33*ones)&^b)&tops == 0
}

func fin(c *conn, w [][]byte) error { return c.op(delivery.Op{Kind: delivery.Finish}, w) }

func touch(c *conn, w [][]byte) error { return c.op(delivery.Op{Kind: delivery.Touch}, w) }

// req clamps its delay, as nsqd does.
func req(c *conn, w [][]byte) error {
	if len(w[1]) != len(delivery.ID{}) {
		return refuse("E_INVALID", "invalid message ID")
	}
	ms, ok := parseUint(w[2])
	if !ok {
		return refuse("E_INVALID", "REQ could not parse timeout %s", w[2])
	}
	return c.op(delivery.Op{Kind: delivery.Requeue, Delay: min(millis(ms), c.front.o.MaxReqTimeout)}, w)
}

// op gathers an answer to a message.
func (c *conn) op(op delivery.Op, w [][]byte) error {
	if len(w[1]) != len(op.ID) {
		return refuse("E_INVALID", "invalid message ID")
	}
	copy(op.ID[:], w[1])
	if len(c.group.msgs) > 0 || len(c.ops) >= answersMax {
		if err := c.settle(); err != nil {
			return err
		}
	}
	c.ops = append(c.ops, op)
	return nil
}

// body reads the sized body of IDENTIFY and AUTH.
func (c *conn) body(command string) ([]byte, error) {
	n, err := c.size()
	switch {
	case err != nil:
		return nil, c.cut(err, "E_BAD_BODY", "%s failed to read body size", command)
	case int64(n) > c.front.o.MaxBodySize:
		return nil, refuse("E_BAD_BODY", "%s body too big %d > %d", command, n, c.front.o.MaxBodySize)
	case n <= 0:
		return nil, refuse("E_BAD_BODY", "%s invalid body size %d", command, n)
	}
	p := c.front.newPublish(command, "")
	defer p.drop()
	if err := c.readInto(p, int(n)); err != nil {
		return nil, c.cut(err, "E_BAD_BODY", "%s failed to read body", command)
	}
	return bytes.Clone(p.body), nil
}

// size reads a length or count.
func (c *conn) size() (int32, error) {
	if err := c.in.need(4); err != nil {
		return 0, err
	}
	return int32(binary.BigEndian.Uint32(c.in.next(4))), nil
}

// cut is the refusal for a body that did not come, unless there is another
// reason to stop.
func (c *conn) cut(err error, code, format string, args ...any) error {
	if c.drainEnd.Load() != 0 {
		return errStop
	}
	if errors.Is(err, errStop) || fault.CodeOf(err) == fault.Overloaded {
		return err
	}
	return refuse(code, format, args...)
}

// readInto appends n bytes of the socket to p.body, which grows as they come.
func (c *conn) readInto(p *publish, n int) error {
	for n > 0 {
		step := n
		if len(p.body)+n > cap(p.body) {
			step = min(n, max(cap(p.body)-len(p.body), max(bodyStartBytes, len(p.body))))
		}
		if err := p.grow(c.ctx, step); err != nil {
			return err
		}
		at := len(p.body)
		if err := c.in.readFull(p.body[at : at+step]); err != nil {
			return err
		}
		p.body = p.body[:at+step]
		n -= step
	}
	return nil
}

// parseUint reads decimal digits; none are 0, as in nsqd. What does not fit
// becomes the largest number.
func parseUint(b []byte) (uint64, bool) {
	var n uint64
	for _, d := range b {
		if d < '0' || d > '9' {
			return 0, false
		}
		if n > (1<<64-1-9)/10 {
			n = 1<<64 - 1
			continue
		}
		n = n*10 + uint64(d-'0')
	}
	return n, true
}

// millis is a duration of ms milliseconds, or the longest there is.
func millis(ms uint64) time.Duration {
	const most = uint64(1<<63-1) / uint64(time.Millisecond)
	return time.Duration(min(ms, most)) * time.Millisecond
}

// validName reports whether b is a topic or channel name: letters, digits and
// . _ -, 1 to 64 bytes with an optional #ephemeral.
func validName(b []byte) bool {
	if len(b) == 0 || len(b) > 64 {
		return false
	}
	b = bytes.TrimSuffix(b, []byte("#ephemeral"))
	for _, d := range b {
		if !nameByte[d] {
			return false
		}
	}
	return len(b) > 0
}

var nameByte = func() (ok [256]bool) {
	for _, d := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") {
		ok[d] = true
	}
	return ok
}()
