package nsq

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/spool"
)

// PathEdge is where an edge brings what it has taken, by POST, with the grant to
// publish to the topic. The query has topic; origin, 32 hexadecimal digits;
// partition, from and to, numbers; and partitions, how many it knows of, which may be
// missing; the body is spool.AppendMessages of the messages
// of that partition. The answer is Forwarded, or status 409 and OUT_OF_ORDER where
// nothing was done because the partition has not come to from.
const PathEdge = "/edge"

// Forwarded is the answer to what an edge brings.
type Forwarded struct {
	Partitions int `json:"partitions"` // that the topic has
}

// edgeBytesMax bounds what comes beside one message of the largest size, bytes; and
// edgeMessagesMax the number of messages.
const (
	edgeBytesMax    = 4 << 20
	edgeMessagesMax = 16 << 10
)

func httpEdge(f *Front, r *http.Request, q url.Values) (any, error) {
	topic, err := topicArg(q, true)
	if err != nil {
		return nil, err
	}
	in := broker.Ingest{Topic: topic}
	origin, err := hex.DecodeString(q.Get("origin"))
	if err != nil || copy(in.Session[:], origin) != len(in.Session) || len(origin) > len(in.Session) {
		return nil, bad("INVALID_ORIGIN")
	}
	part, err := strconv.ParseUint(q.Get("partition"), 10, 16)
	if err != nil {
		return nil, bad("INVALID_PARTITION")
	}
	in.Partition = int(part)
	if known := q.Get("partitions"); known != "" { // edges of before do not say it
		if part, err = strconv.ParseUint(known, 10, 16); err != nil {
			return nil, bad("INVALID_PARTITION")
		}
		in.Spread = int(part)
	}
	for name, to := range map[string]*uint64{"from": &in.From, "to": &in.To} {
		if *to, err = strconv.ParseUint(q.Get(name), 10, 64); err != nil {
			return nil, bad("INVALID_POSITION")
		}
	}
	p, err := f.readRequest(r, "PUB", f.o.MaxMsgSize+edgeBytesMax, "BODY_TOO_BIG")
	if err != nil {
		return nil, err
	}
	defer p.drop() // a batch is a copy
	if in.Messages, err = f.edgeMessages(p.body); err != nil {
		return nil, err
	}
	var out Forwarded
	if out.Partitions, err = f.o.Forward(r.Context(), &in); err != nil {
		if fault.CodeOf(err) == fault.OutOfOrder {
			err = &httpError{http.StatusConflict, fault.OutOfOrder.String()}
		}
		return nil, err
	}
	f.metrics.http.of(topic).Add(uint64(len(in.Messages)))
	return out, nil
}

// edgeMessages reads messages, which have the limits of any others.
func (f *Front) edgeMessages(body []byte) ([]broker.Message, error) {
	msgs, err := spool.Messages(body, edgeMessagesMax)
	if err != nil {
		return nil, bad("BAD_BODY")
	}
	latest := time.Now().Add(f.o.MaxDeferTimeout).UnixNano()
	for i := range msgs {
		switch m := &msgs[i]; {
		case int64(len(m.Body)) > f.o.MaxMsgSize:
			return nil, &httpError{http.StatusRequestEntityTooLarge, "MSG_TOO_BIG"}
		case len(m.Key) > keyBytesMax:
			return nil, bad("INVALID_KEY")
		case len(m.ID) > keyBytesMax:
			return nil, bad("INVALID_ID")
		case m.DueNs > latest:
			return nil, bad("INVALID_DEFER")
		}
	}
	return msgs, nil
}
