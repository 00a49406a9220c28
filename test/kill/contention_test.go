//go:build linux

package kill

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// contested are the names of one topic and channel that everybody works on.
type contested struct{ topic, channel string }

func (c contested) query() string {
	return "?topic=" + url.QueryEscape(c.topic) + "&channel=" + url.QueryEscape(c.channel)
}

// Topics and channels of every kind are deleted while others publish and
// subscribe: nobody meets a 5xx, and in the end the names still work.
func TestDeletionsUnderUse(t *testing.T) {
	n := newNode(plainBinary(t), dataDir(t))
	n.MustStart(t)
	rng := rand.New(rand.NewPCG(seed(t), 11))
	for round := range 6 {
		for i, c := range []contested{
			{"durable", "c"}, {"durable", "c#ephemeral"}, {"brief#ephemeral", "c"}, {"brief#ephemeral", "c#ephemeral"},
		} {
			c.topic = fmt.Sprintf("t%d-%d-%s", round, i, c.topic)
			n.contend(t, c, rng.Uint64())
			n.works(t, c)
		}
	}
	n.Kill()
	n.MustStart(t)
}

// contend lets publishers, consumers and deleters work on the same names.
func (n *node) contend(t *testing.T, c contested, seed uint64) {
	t.Helper()
	verbs := []string{"/topic/delete", "/channel/delete", "/channel/create", "/topic/pause", "/topic/unpause", "/channel/empty"}
	var all sync.WaitGroup
	post := func(path string) {
		// 4xx: deleted by another. 503: a channel of a topic that is being deleted.
		if status, text, err := n.Post(path+c.query(), []byte("x")); err != nil || status >= 500 && status != 503 {
			t.Errorf("%s %v: %d %s %v", path, c, status, text, err)
		}
	}
	for worker := range 2 {
		rng := rand.New(rand.NewPCG(seed, uint64(worker)))
		all.Go(func() {
			for range 40 {
				post("/pub")
			}
		})
		all.Go(func() {
			for range 60 {
				post(verbs[rng.IntN(len(verbs))])
			}
		})
		all.Go(func() {
			for range 20 {
				w, err := rig.Dial(n.Addrs.TCP, "contender", 0)
				if err != nil {
					t.Error(err)
					return
				}
				// refused when it is deleted in the same moment
				if w.Subscribe(c.topic, c.channel, 10) == nil {
					w.Conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
					w.Read()
				}
				w.Close()
			}
		})
	}
	all.Wait()
}

// works wants the names to work. What is ephemeral may still be going, with the
// last of those who contended: that is tried again, as a client would.
func (n *node) works(t *testing.T, c contested) {
	t.Helper()
	deadline := time.Now().Add(rig.Patience)
	for {
		err := n.try(t, c)
		if err == nil {
			return
		}
		if !strings.Contains(c.query(), "ephemeral") || time.Now().After(deadline) {
			t.Fatalf("%v: %v", c, err)
		}
	}
}

// try subscribes and publishes; the message must come.
func (n *node) try(t *testing.T, c contested) error {
	t.Helper()
	w := n.MustDial(t)
	defer w.Close()
	for _, path := range []string{"/topic/create", "/topic/unpause"} {
		if status, text, err := n.Post(path+c.query(), nil); err != nil || status != 200 {
			return fmt.Errorf("%s: %d %s %v", path, status, text, err)
		}
	}
	if err := w.Subscribe(c.topic, c.channel, 100); err != nil {
		return err
	}
	const last = "the last message"
	if status, text, err := n.Post("/pub"+c.query(), []byte(last)); err != nil || status != 200 {
		return fmt.Errorf("/pub: %d %s %v", status, text, err)
	}
	w.Conn.SetReadDeadline(time.Now().Add(rig.Patience))
	for {
		kind, data, err := w.Read()
		if err != nil || kind == rig.FrameError {
			return fmt.Errorf("the last message does not come: %s %w", data, err)
		}
		if kind != rig.FrameMessage {
			continue
		}
		d, _ := rig.ParseMessage(data)
		fmt.Fprintf(w.W, "FIN %s\n", d.ID[:])
		w.W.Flush()
		if strings.HasSuffix(string(d.Body), last) {
			return nil
		}
	}
}
