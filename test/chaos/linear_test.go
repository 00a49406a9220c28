//go:build linux

package chaos

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// place is what an operation on a log did: an append that came to stand at At,
// or a read of what stands there.
type place struct {
	at     int
	append bool
}

// logModel is one partition: appends go to its end, and only what is before the
// end can be read. Its state is the end.
var logModel = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, _ any) (bool, any) {
		end, p := state.(int), input.(place)
		if p.append {
			return p.at == end, end + 1
		}
		return p.at < end, end
	},
	DescribeOperation: func(input, _ any) string {
		if p := input.(place); p.append {
			return fmt.Sprintf("append -> %d", p.at)
		}
		return fmt.Sprintf("read %d", input.(place).at)
	},
}

// operationsMax bounds what porcupine is given; its work grows faster than that.
const operationsMax = 20_000

// operations are the publishes of a topic that are in its log, in the order of
// the log from its beginning, and for each the moment when a channel was first
// given it. A publish without an answer may have happened at any time after it
// was sent.
func (h *history) operations(topic int) (all []porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for at, m := range h.logOf(topic) {
		a := h.attempt(m)
		end := int64(a.acked)
		if a.acked == 0 {
			end = 1 << 62
		}
		all = append(all, porcupine.Operation{ClientId: m.Publisher(), Input: place{at, true}, Call: int64(a.sent), Return: end})
		if read := h.firstRead(m.Publisher(), m.Seq()); read != 0 {
			all = append(all, porcupine.Operation{ClientId: len(h.attempts), Input: place{at, false}, Call: int64(read), Return: int64(read)})
		}
		if len(all) >= operationsMax {
			break
		}
	}
	return all
}

// linear says whether the publishes and reads of a topic can have happened one
// by one, each at a moment between its beginning and its end.
func linear(all []porcupine.Operation) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(logModel, all, time.Minute)
}
