package nsq

import (
	"io"
	"time"
)

// What is read and thrown away after an error has these bounds. A message that
// is refused for its size comes behind the refusal, all of it, and a line may be
// slow.
const (
	lingerBytesMax = 16 << 20
	lingerTimeMax  = 10 * time.Second
	// lingerStep is how many bytes have to come within lingerPatience.
	lingerStep     = 64 << 10
	lingerPatience = time.Second
)

// linger closes our side, then reads what the client still sends, within
// bounds: closing with unread bytes would reset the connection and might take
// the error frame with it.
func (c *conn) linger() {
	if c.drainEnd.Load() != 0 {
		return
	}
	half, ok := c.net.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	end := time.Now().Add(lingerTimeMax)
	for n := 0; n < lingerBytesMax && c.drainEnd.Load() == 0; n += lingerStep {
		until := time.Now().Add(lingerPatience)
		if until.After(end) {
			until = end
		}
		_ = c.net.SetReadDeadline(until)
		if _, err := io.CopyN(io.Discard, c.net, lingerStep); err != nil {
			return
		}
	}
}
