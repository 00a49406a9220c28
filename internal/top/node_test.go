package top

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	gonsq "github.com/nsqio/go-nsq"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/vfs"
)

// httpSource asks the admin API at an address.
type httpSource string

func (h httpSource) open(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: string(h), Path: "/api/v1/" + path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return resp, err
}

func (h httpSource) Watch(ctx context.Context, watches []string, on func(string, []byte)) error {
	resp, err := h.open(ctx, "events", url.Values{"watch": watches})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	kind := ""
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			kind = name
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			on(kind, []byte(data))
		}
	}
	return lines.Err()
}

func (h httpSource) Get(ctx context.Context, path string, query url.Values, v any) error {
	resp, err := h.open(ctx, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(v)
}

func startNode(t *testing.T) node.Addrs {
	t.Helper()
	c := config.Default()
	c.DataPath, c.WALSegmentSize, c.DrainTimeout = t.TempDir(), 1<<20, 10*time.Millisecond
	const free = "127.0.0.1:0"
	c.TCPAddress, c.HTTPAddress, c.AdminAddress, c.LookupTCPAddress, c.LookupHTTPAddress, c.NSQAdminHTTPAddress = free, free, free, "", "", ""
	n, err := node.New(node.Options{Config: c, FS: vfs.Default(), Logger: slog.New(slog.DiscardHandler), LogLevel: new(slog.LevelVar)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- n.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("node ended before it served: %v", err)
	}
	return n.Addrs()
}

// hold consumes one message and keeps it.
func hold(t *testing.T, tcp, topic, channel string) {
	t.Helper()
	cfg := gonsq.NewConfig()
	cfg.ClientID = "holder"
	c, err := gonsq.NewConsumer(topic, channel, cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.SetLoggerLevel(gonsq.LogLevelMax)
	enough := make(chan struct{})
	c.AddHandler(gonsq.HandlerFunc(func(*gonsq.Message) error {
		<-enough
		return nil
	}))
	if err := c.ConnectToNSQD(tcp); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(enough)
		c.Stop()
		<-c.StopChan
	})
}

// A real node: what is published, held and left shows by itself.
func TestOfANode(t *testing.T) {
	at := startNode(t)
	for _, path := range []string{"topic/create?topic=orders", "channel/create?topic=orders&channel=billing"} {
		post(t, at.HTTP, path, "")
	}
	src := httpSource(at.Admin)
	f := newFeed(src)
	ctx, cancel := context.WithCancel(t.Context())
	messages := make(chan any, 100)
	tell := func(m any) {
		select {
		case messages <- m:
		case <-ctx.Done():
		}
	}
	done := make(chan struct{})
	go func() { f.run(ctx, tell); close(done) }()
	defer func() { cancel(); <-done }()

	x := &screenTest{t: t, wants: &wishes{}}
	x.model = newModel(Options{Source: src}, f, func(topic, channel, sort, filter string) tea.Cmd {
		return askConsumers(ctx, src, topic, channel, sort, filter)
	})
	x.Init()
	x.send(tea.WindowSizeMsg{Width: 80, Height: 24})
	until := func(texts ...string) {
		t.Helper()
		patience := time.After(15 * time.Second)
		for {
			view, all := x.view(), true
			for _, text := range texts {
				all = all && strings.Contains(view, text)
			}
			if all {
				return
			}
			select {
			case m := <-messages:
				if cmd := x.send(m); cmd != nil {
					go func() { tell(cmd()) }()
				}
			case <-patience:
				t.Fatalf("waited in vain for %q:\n%s", texts, view)
			}
		}
	}
	press := func(names ...string) {
		if cmd := x.keys(names...); cmd != nil {
			go func() { tell(cmd()) }()
		}
	}
	until("● healthy", "1 node   1 topic   1 channel", "1–1 of 1")
	for range 3 {
		post(t, at.HTTP, "pub?topic=orders", "hello")
	}
	until("backlog 3")
	hold(t, at.TCP, "orders", "billing")
	until("backlog 2", "in flight 1", "1 consumer")
	press("enter")
	until("Topics › orders", "1–1 of 1")
	press("enter")
	until("orders › billing", "holder@", "in flight 1", "$ tidings channel peek orders billing --state in-flight")
	press("3")
	until("NODE↑", "live")
	press("2", "/", "x", "y", "z", "enter")
	until("nothing matches xyz")
	press("esc")
	until("1–1 of 1")
	press("p")
	x.shows("PAUSED")

	o := Options{Source: src, View: "channels", Limit: 10, Filter: "bill*"}
	snap, err := Take(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(snap.Channels.Items) != 1 || snap.Channels.Items[0].Backlog != 2 || snap.Overview.Totals.InRate == nil {
		t.Errorf("snapshot: %+v", snap.Channels)
	}
}

func post(t *testing.T, addr, path, body string) {
	t.Helper()
	resp, err := http.Post("http://"+addr+"/"+path, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, resp.Status)
	}
}
