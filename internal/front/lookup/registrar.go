package lookup

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Name is what is registered: a topic, or a channel of it.
type Name struct{ Topic, Channel string } // Channel is empty for the topic itself

// RegistrarOptions are a Registrar's settings. Zero values mean the default
// beside the field.
type RegistrarOptions struct {
	// Self is what the node says of itself; its RemoteAddress is not sent.
	Self Peer
	// Addresses are where nsqlookupds speak TCP, as host:port.
	Addresses []string
	// Offer lists what the node is to be registered for, each name with its
	// incarnation: one that was deleted and made anew is registered again,
	// because an nsqlookupd may have forgotten it in between. Every topic is in
	// it under its own name, and each channel.
	Offer func() map[Name]uint64

	PingInterval   time.Duration // 15 s
	RetryInterval  time.Duration // longest between two attempts to connect; 15 s
	CallTimeout    time.Duration // to connect, and of each answer; 1 s
	SettleInterval time.Duration // shortest between two looks at Offer; 20 ms

	ConnectTimeout time.Duration // of HTTP; 2 s
	RequestTimeout time.Duration // of HTTP, as a whole; 5 s

	Logger *slog.Logger
}

func (o RegistrarOptions) withDefaults() RegistrarOptions {
	orDefault(&o.PingInterval, 15*time.Second)
	orDefault(&o.RetryInterval, 15*time.Second)
	orDefault(&o.CallTimeout, time.Second)
	orDefault(&o.SettleInterval, 20*time.Millisecond)
	orDefault(&o.ConnectTimeout, 2*time.Second)
	orDefault(&o.RequestTimeout, 5*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Registrar keeps a node registered with nsqlookupds, as an nsqd is. Each has a
// connection and a goroutine of its own, so that a slow one holds up nobody.
type Registrar struct {
	o      RegistrarOptions
	client http.Client

	mu     sync.Mutex // guards the following
	wanted []string   // addresses
	links  map[string]*link

	begun chan struct{} // closed when Run has made the first links
	// again tells Run that wanted has changed.
	again chan struct{}
}

// NewRegistrar makes a registrar; it connects when Run is called.
func NewRegistrar(o RegistrarOptions) *Registrar {
	o = o.withDefaults()
	r := &Registrar{o: o, links: make(map[string]*link), again: make(chan struct{}, 1), begun: make(chan struct{})}
	r.client = http.Client{
		Timeout: o.RequestTimeout,
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: o.ConnectTimeout}).DialContext, DisableKeepAlives: true,
		},
	}
	r.SetAddresses(o.Addresses)
	return r
}

// Addresses are where the nsqlookupds are that the node registers with.
func (r *Registrar) Addresses() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.wanted...)
}

// SetAddresses changes them. The node leaves those that are not among them.
func (r *Registrar) SetAddresses(addresses []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = nil
	for _, a := range addresses {
		if !slices.Contains(r.wanted, a) {
			r.wanted = append(r.wanted, a)
		}
	}
	select {
	case r.again <- struct{}{}:
	default:
	}
}

// Changed tells the registrar that Offer has changed. It does not block.
func (r *Registrar) Changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		l.ring()
	}
}

// Run keeps the node registered until ctx ends; then it closes the connections,
// which takes the node out of all lookups. It is called once.
func (r *Registrar) Run(ctx context.Context) error {
	var links sync.WaitGroup
	defer links.Wait()
	r.connect(ctx, &links)
	close(r.begun)
	for {
		select {
		case <-r.again:
			r.connect(ctx, &links)
		case <-ctx.Done():
			return nil
		}
	}
}

// connect makes the links that are wanted, and ends the others.
func (r *Registrar) connect(ctx context.Context, links *sync.WaitGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for addr, l := range r.links {
		if !slices.Contains(r.wanted, addr) {
			l.stop()
			delete(r.links, addr)
		}
	}
	for _, addr := range r.wanted {
		if r.links[addr] != nil {
			continue
		}
		one, stop := context.WithCancel(ctx)
		l := newLink(addr, &r.o, stop)
		r.links[addr] = l
		links.Go(func() { l.run(one) })
	}
}

// Channels asks every nsqlookupd which channels a topic has, and returns what
// any of them says, in no order. It waits for those that have not been tried
// yet; what fails is told in the log.
func (r *Registrar) Channels(ctx context.Context, topic string) []string {
	if len(r.Addresses()) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.o.RequestTimeout)
	defer cancel()
	select {
	case <-r.begun:
	case <-ctx.Done():
		return nil
	}
	r.mu.Lock()
	links := slices.Collect(maps.Values(r.links))
	r.mu.Unlock()
	answers := make([][]string, len(links))
	var wg sync.WaitGroup
	var mu sync.Mutex
	reached := 0
	for i, l := range links {
		wg.Go(func() {
			addr, ok := l.httpAddress(ctx)
			if !ok {
				return
			}
			found, err := r.channels(ctx, addr, topic)
			if err != nil {
				r.o.Logger.Warn("ask nsqlookupd for the channels of a new topic", "nsqlookupd", addr, "topic", topic, "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[i], reached = found, reached+1
		})
	}
	wg.Wait()
	if reached == 0 {
		r.o.Logger.Error("no nsqlookupd says which channels a new topic is to have", "topic", topic)
	}
	return union(nil, slices.Concat(answers...))
}

// answerBytesMax bounds an nsqlookupd's answer.
const answerBytesMax = 16 << 20

func (r *Registrar) channels(ctx context.Context, addr, topic string) ([]string, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/channels?topic="+url.QueryEscape(topic), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/vnd.nsq; version=1.0")
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d: %.200q", resp.StatusCode, body)
	}
	var answer struct {
		Channels []string `json:"channels"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return answer.Channels, nil
}
