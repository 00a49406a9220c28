package nsq

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	gonsq "github.com/nsqio/go-nsq"
)

// transports are what a client may combine.
var transports = []struct {
	name            string
	tls             bool
	snappy, deflate bool
}{
	{"plain", false, false, false},
	{"tls", true, false, false},
	{"snappy", false, true, false},
	{"deflate", false, false, true},
	{"tls+snappy", true, true, false},
	{"tls+deflate", true, false, true},
}

// go-nsq's own client publishes and consumes over every transport, and /stats
// says that it is really used: the client goes on without when it is refused.
func TestTransportsWithRealClient(t *testing.T) {
	a := newAuthority(t)
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			r := start(t, newFakeBroker(), Options{TLS: a.server()})
			cfg := gonsq.NewConfig()
			cfg.TlsV1, cfg.Snappy, cfg.Deflate = tr.tls, tr.snappy, tr.deflate
			cfg.TlsConfig = a.client()
			cfg.MaxInFlight = 50
			bodies := testBodies()

			consumer, got := consume(t, r, cfg)
			producer, err := gonsq.NewProducer(r.tcp, cfg)
			if err != nil {
				t.Fatal(err)
			}
			producer.SetLoggerLevel(gonsq.LogLevelMax)
			defer producer.Stop()
			for _, b := range bodies[:10] {
				if err := producer.Publish("t", b); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan *gonsq.ProducerTransaction, len(bodies))
			for _, b := range bodies[10:20] {
				if err := producer.PublishAsync("t", b, done); err != nil {
					t.Fatal(err)
				}
			}
			for range 10 {
				if tx := <-done; tx.Error != nil {
					t.Fatal(tx.Error)
				}
			}
			if err := producer.MultiPublish("t", bodies[20:]); err != nil {
				t.Fatal(err)
			}
			for i, want := range bodies {
				if b := <-got; b != string(want) {
					t.Fatalf("message %d: %d bytes, want %d", i, len(b), len(want))
				}
			}
			wantTransport(t, r, tr.tls, tr.snappy, tr.deflate)
			consumer.Stop()
			<-consumer.StopChan
		})
	}
}

// testBodies are small and large messages, some of which do not shrink.
func testBodies() (all [][]byte) {
	for i := range 30 {
		b := []byte(fmt.Sprintf("message %d ", i))
		if i%10 == 7 {
			for j := range 300_000 { // larger than every buffer
				b = append(b, byte(j*j>>3^j*i))
			}
		}
		all = append(all, b)
	}
	return all
}

// consume gathers the bodies that a consumer gets.
func consume(t *testing.T, r *running, cfg *gonsq.Config) (*gonsq.Consumer, chan string) {
	t.Helper()
	got := make(chan string, 1000)
	c, err := gonsq.NewConsumer("t", "c", cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.SetLoggerLevel(gonsq.LogLevelMax)
	c.AddHandler(gonsq.HandlerFunc(func(m *gonsq.Message) error {
		got <- string(m.Body)
		return nil
	}))
	if err := c.ConnectToNSQD(r.tcp); err != nil {
		t.Fatal(err)
	}
	return c, got
}

// statsOf reads /stats.
func (r *running) statsOf() (s statsJSON) {
	r.t.Helper()
	_, body := r.get("/stats?format=json")
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// wantTransport wants one producer and one consumer that use it.
func wantTransport(t *testing.T, r *running, tls, snappy, deflate bool) {
	t.Helper()
	s := r.statsOf()
	if len(s.Producers) != 1 || len(s.Topics) != 1 || len(s.Topics[0].Channels[0].Clients) != 1 {
		t.Fatalf("%+v", s)
	}
	for _, c := range []clientJSON{s.Producers[0], s.Topics[0].Channels[0].Clients[0]} {
		if c.TLS != tls || c.Snappy != snappy || c.Deflate != deflate || c.TLSProtoMutal != tls {
			t.Errorf("%+v", c)
		}
		if tls && (c.TLSVersion != "TLS1.3" || !strings.HasPrefix(c.CipherSuite, "TLS_")) {
			t.Errorf("%+v", c)
		}
		if !tls && (c.TLSVersion != "" || c.CipherSuite != "") {
			t.Errorf("%+v", c)
		}
	}
}
