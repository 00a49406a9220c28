package broker_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// keyedLoad publishes messages KEY/N, all that are under way at once, and waits for
// their answers.
func (r *rig) keyedLoad(topic string, key string, from, to int) error {
	var answers []chan error
	for n := from; n < to; n++ {
		got := make(chan error, 1)
		msgs := []broker.Message{{Key: []byte(key), Body: fmt.Appendf(nil, "%s/%d", key, n)}}
		if err := r.Publish(topic, msgs, completion(got)); err != nil {
			return err
		}
		answers = append(answers, got)
	}
	for _, got := range answers {
		if err := <-got; err != nil {
			return err
		}
	}
	return nil
}

// inOrder takes n messages KEY/N and checks the order of each key.
func (c *consumer) inOrder(n int) {
	c.t.Helper()
	next := make(map[string]int)
	for _, body := range c.take(n) {
		key, number, _ := strings.Cut(body, "/")
		if want := strconv.Itoa(next[key]); number != want {
			c.t.Fatalf("key %s: %s comes where %s is next", key, number, want)
		}
		next[key]++
	}
}

// On a node that is alone the number of partitions rises under load, too.
func TestRaiseAlone(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	r.ok(r.CreateChannel(r.ctx(), "orders", "audit"))
	early := r.subscribe("orders", "audit", 1)
	const keys, each = 8, 60
	var all sync.WaitGroup
	for k := range keys {
		all.Go(func() {
			for n := 0; n < each; n += 10 {
				if err := r.keyedLoad("orders", fmt.Sprint("k", k), n, n+10); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, count := range []int{2, 5} {
		r.ok(r.RaisePartitions(r.ctx(), "orders", count))
	}
	all.Wait()
	for k := range keys {
		r.ok(r.keyedLoad("orders", fmt.Sprint("k", k), each, each+5))
	}
	layout, err := r.Layout(r.ctx(), "orders")
	r.ok(err)
	if layout.Active != 5 || len(layout.Partitions) != 5 {
		t.Errorf("it has come to %+v", layout)
	}
	early.inOrder(keys * (each + 5))
	if err := r.RaisePartitions(r.ctx(), "orders", 3); !errors.Is(err, fault.InvalidRequest) {
		t.Errorf("fewer: %v", err)
	}
}

// A node that ends in the middle of a raise goes on with it.
func TestRaiseGoesOnAfterARestart(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	r.ok(r.CreateChannel(r.ctx(), "orders", "audit"))
	r.ok(r.keyedLoad("orders", "a", 0, 20))
	m, _ := r.meta.View().Topic("orders")
	raised := make(chan error, 1)
	r.meta.RaiseTopic(m.ID, 4, func(_ *meta.Topic, err error) { raised <- err })
	r.ok(<-raised)
	r.restart()
	if m, _ := r.meta.View().Topic("orders"); m.Raising() || m.Active != 4 {
		t.Errorf("after the restart: %+v", m)
	}
	r.ok(r.keyedLoad("orders", "a", 20, 40))
	r.restart()
	r.ok(r.keyedLoad("orders", "a", 40, 60))
	r.subscribe("orders", "audit", 1).inOrder(60)
}
