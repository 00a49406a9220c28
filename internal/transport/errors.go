package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/tidings-io/tidings/internal/fault"
)

var (
	// ErrNotSent is in the chain of a call's error when the peer has not seen the
	// request and will not: it can be sent again without thought.
	ErrNotSent = errors.New("not sent")
	// ErrUnknownOutcome is in the chain of a call's error when the request was
	// sent and no reply came: it may have been done, may be under way, or lost.
	ErrUnknownOutcome = errors.New("outcome unknown")
)

// Reason says why a node refuses a connection; it is a word of the protocol.
type Reason string

// The reasons.
const (
	ReasonVersion   Reason = "version"        // no protocol version that both speak
	ReasonCluster   Reason = "wrong-cluster"  // the nodes belong to different clusters
	ReasonForming   Reason = "forming"        // Raft between nodes of which one has no cluster yet
	ReasonUnknown   Reason = "unknown-node"   // not a peer, and not let through
	ReasonName      Reason = "wrong-name"     // certificate, hello or expectation differ in the name
	ReasonRaftID    Reason = "wrong-raft-id"  // the peer is there under another Raft id
	ReasonSelf      Reason = "self"           // the node has dialed itself
	ReasonMalformed Reason = "malformed"      // no hello
	ReasonForbidden Reason = "not-authorized" // Options.Authorize says no
)

// RefusedError is a connection that one of the two nodes did not want.
type RefusedError struct {
	Reason Reason `json:"reason"`
	Text   string `json:"text"`
	// ByPeer: it was the other node that refused.
	ByPeer bool `json:"-"`
}

// Error says who refused and why.
func (e *RefusedError) Error() string {
	if e.ByPeer {
		return "refused by the peer: " + e.Text
	}
	return "refused: " + e.Text
}

func refusef(r Reason, format string, args ...any) *RefusedError {
	return &RefusedError{Reason: r, Text: fmt.Sprintf(format, args...)}
}

// outcome is an error of a call: the sentinel says what is known of the request,
// the cause why.
type outcome struct {
	sentinel, cause error
}

func (o *outcome) Error() string {
	if o.cause == nil {
		return o.sentinel.Error()
	}
	return o.sentinel.Error() + ": " + o.cause.Error()
}

func (o *outcome) Unwrap() []error {
	if o.cause == nil {
		return []error{o.sentinel}
	}
	return []error{o.sentinel, o.cause}
}

// notSent is the error of a request that never left.
func notSent(peer string, code fault.Code, cause error) error {
	return &fault.Error{Code: code, Text: "call " + peer, Cause: &outcome{ErrNotSent, cause}}
}

// unknownOutcome is the error of a request that left and was not answered.
func unknownOutcome(peer string, cause error) error {
	return &fault.Error{Code: fault.Timeout, Text: "call " + peer, Cause: &outcome{ErrUnknownOutcome, cause}}
}

// codeOfContext is the code of a call whose context has ended before it was
// sent.
func codeOfContext(err error) fault.Code {
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.Timeout
	}
	return fault.Exiting
}

// codeNames finds a code by its name: the numbers are local to a process, so
// names travel.
var codeNames = sync.OnceValue(func() map[string]fault.Code {
	names := make(map[string]fault.Code)
	for n := range 256 {
		c := fault.Code(n)
		if name := c.String(); !strings.HasPrefix(name, "CODE_") {
			names[name] = c
		}
	}
	return names
})

// maxErrorText bounds the text of an error on the wire, in bytes.
const maxErrorText = 16 << 10

// encodeError is the payload of an error reply: length and name of the code,
// then the text.
func encodeError(err error) []byte {
	code := fault.CodeOf(err)
	if code == fault.Internal && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		code = fault.Timeout
	}
	name, text := code.String(), err.Error()
	text = text[:min(len(text), maxErrorText)]
	b := binary.LittleEndian.AppendUint16(nil, uint16(len(name)))
	return append(append(b, name...), text...)
}

// decodeError reads what encodeError wrote. A code that this program does not
// know is fault.Internal.
func decodeError(b []byte) (*fault.Error, error) {
	if len(b) < 2 || len(b)-2 < int(binary.LittleEndian.Uint16(b)) {
		return nil, malformed("error reply of %d bytes", len(b))
	}
	n := 2 + int(binary.LittleEndian.Uint16(b))
	name, text := string(b[2:n]), string(b[n:])
	code, ok := codeNames()[name]
	if !ok || code == fault.None {
		return &fault.Error{Code: fault.Internal, Text: name + ": " + text}, nil
	}
	return &fault.Error{Code: code, Text: text}, nil
}
