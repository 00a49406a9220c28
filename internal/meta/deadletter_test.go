package meta

import (
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/fault"
)

func TestLimitOfAChannel(t *testing.T) {
	for name, l := range map[string]*loop{"a node that is alone": newLoop(t, Options{}), "a cluster": newCluster(t, three(), 2, nil)} {
		t.Run(name, func(t *testing.T) {
			topic := l.create("orders")
			ch := l.channel(topic.ID, "billing")
			l.channel(topic.ID, "stock")
			for _, want := range []struct {
				attempts uint16
				topic    string
			}{{3, "orders.billing.dead"}, {MaxAttempts, strings.Repeat("d", MaxName)}, {0, ""}} {
				if err := l.wait(func(d func(error)) { l.m.SetDeadLetter(topic.ID, ch.ID, want.attempts, want.topic, d) }); err != nil {
					t.Fatal(err)
				}
				back, err := decodeView(l.m.View().encode())
				if err != nil {
					t.Fatal(err)
				}
				for where, v := range map[string]*View{"shown": l.m.View(), "read back": back} {
					now, _ := v.Topic("orders")
					for _, c := range now.Channels {
						if limited := c.Name == "billing"; limited && (c.MaxAttempts != want.attempts || c.DeadLetter != want.topic) ||
							!limited && (c.MaxAttempts != 0 || c.DeadLetter != "") {
							t.Errorf("%s %+v, want %+v", where, c, want)
						}
					}
				}
			}
			if err := l.wait(func(d func(error)) { l.m.SetDeadLetter(topic.ID, ch.ID+9, 1, "x", d) }); fault.CodeOf(err) != fault.ChannelNotFound {
				t.Errorf("of no channel: %v", err)
			}
		})
	}
}

func TestCommandsThatLimitNothingAreRefused(t *testing.T) {
	for _, c := range []command{
		{Count: 1},
		{Name: "dead"},
		{Count: MaxAttempts + 1, Name: "dead"},
		{Count: 1, Name: strings.Repeat("d", MaxName+1)},
	} {
		c.Kind = kindSetDeadLetter
		r := reader{b: c.append(nil)}
		if got, err := r.command(); err == nil {
			t.Errorf("read %+v", got)
		}
	}
}
