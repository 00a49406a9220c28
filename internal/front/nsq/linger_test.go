package nsq

import (
	"strings"
	"testing"
)

// TestRefusalOfALargeMessage: a client that is writing what is too large for us,
// and for the sockets between, learns why it is refused.
func TestRefusalOfALargeMessage(t *testing.T) {
	r := start(t, newFakeBroker(), Options{})
	p := r.dial()
	p.send("PUB a\n" + sized(strings.Repeat("x", lingerBytesMax-1000)))
	p.want("1:E_BAD_MESSAGE PUB message too big 16776216 > 1048576")
	p.wantClosed()
}
