package nsq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/spool"
)

// TestEdge: what an edge brings comes to the broker as it was taken, and what can't be
// is refused with a code.
func TestEdge(t *testing.T) {
	var got broker.Ingest
	r := start(t, newFakeBroker(), Options{
		MaxMsgSize: 100,
		Forward: func(_ context.Context, in *broker.Ingest) (int, error) {
			got = *in
			got.Messages = nil
			for _, m := range in.Messages {
				got.Messages = append(got.Messages, broker.Message{Body: []byte(string(m.Body)), Key: []byte(string(m.Key)), DueNs: m.DueNs})
			}
			switch in.From {
			case 9:
				return 0, fmt.Errorf("forward: %w", fault.OutOfOrder)
			case 10:
				return 0, errors.Join(fault.NotLeader)
			}
			return 3, nil
		},
	})
	body := string(spool.AppendMessages(nil, []broker.Message{{Body: []byte("x"), Key: []byte("k"), DueNs: 5}, {Body: []byte("y")}}))
	origin := strings.Repeat("0a", 16)
	ask := func(query, body string) string {
		status, text := r.post("/edge?topic=orders&"+query, body)
		return fmt.Sprint(status, " ", text)
	}
	if text := ask("origin="+origin+"&partition=2&partitions=5&from=7&to=11", body); text != `200 {"partitions":3}` {
		t.Fatal(text)
	}
	if got.Topic != "orders" || got.Partition != 2 || got.Spread != 5 || got.From != 7 || got.To != 11 || got.Session[15] != 10 || got.Handed ||
		len(got.Messages) != 2 || string(got.Messages[0].Key) != "k" || got.Messages[0].DueNs != 5 || string(got.Messages[1].Body) != "y" {
		t.Errorf("it got %+v", got)
	}
	good := "origin=" + origin + "&partition=0&from=0&to=1"
	large := string(spool.AppendMessages(nil, []broker.Message{{Body: make([]byte, 101)}}))
	named := string(spool.AppendMessages(nil, []broker.Message{{Body: []byte("x"), Key: make([]byte, keyBytesMax+1)}}))
	late := string(spool.AppendMessages(nil, []broker.Message{{Body: []byte("x"), DueNs: 1 << 62}}))
	for _, row := range []struct{ query, body, want string }{
		{"origin=" + origin + "&partition=0&from=9&to=9", "", `409 {"message":"OUT_OF_ORDER"}`},
		{"origin=" + origin + "&partition=0&from=10&to=10", "", `503 {"message":"NO_LEADER"}`},
		{"origin=0a&partition=0&from=0&to=1", body, `400 {"message":"INVALID_ORIGIN"}`},
		{"origin=" + origin + "0a&partition=0&from=0&to=1", body, `400 {"message":"INVALID_ORIGIN"}`},
		{"origin=" + origin + "&from=0&to=1", body, `400 {"message":"INVALID_PARTITION"}`},
		{"origin=" + origin + "&partition=0&partitions=x&from=0&to=1", body, `400 {"message":"INVALID_PARTITION"}`},
		{"origin=" + origin + "&partition=0&from=0", body, `400 {"message":"INVALID_POSITION"}`},
		{good, body[1:], `400 {"message":"BAD_BODY"}`},
		{good, large, `413 {"message":"MSG_TOO_BIG"}`},
		{good, named, `400 {"message":"INVALID_KEY"}`},
		{good, late, `400 {"message":"INVALID_DEFER"}`},
	} {
		if text := ask(row.query, row.body); text != row.want {
			t.Errorf("%s: %s, want %s", row.query, text, row.want)
		}
	}
	if status, _ := start(t, newFakeBroker(), Options{}).post("/edge?topic=orders", ""); status != 404 {
		t.Errorf("a front that forwards nothing answers %d", status)
	}
}
