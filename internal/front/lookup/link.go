package lookup

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// retryFirst is the pause after a first failure to connect; it doubles up to
	// RetryInterval.
	retryFirst = 250 * time.Millisecond
	// batchMax is how many commands are on their way to an nsqlookupd at once.
	batchMax = 128
	// replyBytesMax bounds an nsqlookupd's answer to a command.
	replyBytesMax = 1 << 20
)

// link is the registrar's connection to one nsqlookupd, made anew when it
// breaks. run owns it but for bell and http.
type link struct {
	addr string
	o    *RegistrarOptions
	log  *slog.Logger
	stop context.CancelFunc
	bell chan struct{}

	tried    chan struct{} // closed after the first attempt to connect
	triedOne sync.Once
	mu       sync.Mutex
	http     string // where it speaks HTTP; empty while it is not connected
}

func newLink(addr string, o *RegistrarOptions, stop context.CancelFunc) *link {
	return &link{
		addr: addr, o: o, log: o.Logger.With("nsqlookupd", addr), stop: stop,
		bell: make(chan struct{}, 1), tried: make(chan struct{}),
	}
}

func (l *link) ring() {
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

// httpAddress is where the nsqlookupd speaks HTTP, as it says itself, if it is
// connected. ctx bounds the wait for the first attempt.
func (l *link) httpAddress(ctx context.Context) (string, bool) {
	select {
	case <-l.tried:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.http, l.http != ""
}

func (l *link) setHTTP(addr string) {
	l.mu.Lock()
	l.http = addr
	l.mu.Unlock()
}

// run connects, again and again, until ctx ends.
func (l *link) run(ctx context.Context) {
	defer l.attempted()
	first := min(retryFirst, l.o.RetryInterval)
	pause := first
	for {
		connected, err := l.session(ctx)
		l.setHTTP("")
		l.attempted()
		if ctx.Err() != nil {
			return
		}
		l.log.Warn("registration with an nsqlookupd broke off, it will be tried again", "error", err)
		if connected {
			pause = first
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, l.o.RetryInterval)
	}
}

func (l *link) attempted() { l.triedOne.Do(func() { close(l.tried) }) }

// session is one connection's life: it identifies the node, registers what it
// offers, follows the changes and pings. It ends with an error, or with ctx.
func (l *link) session(ctx context.Context) (connected bool, err error) {
	dialer := net.Dialer{Timeout: l.o.CallTimeout}
	nc, err := dialer.DialContext(ctx, "tcp", l.addr)
	if err != nil {
		return false, err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	c := &caller{nc: nc, timeout: l.o.CallTimeout, replies: make(chan []byte), ended: make(chan struct{})}
	go c.read()
	defer close(c.ended)
	if err := l.introduce(c); err != nil {
		return false, err
	}
	has := make(map[Name]uint64)
	if err := l.follow(c, has); err != nil {
		return false, err
	}
	l.log.Info("registered with an nsqlookupd", "names", len(has))
	l.attempted()
	return true, l.live(ctx, c, has)
}

// live follows changes and pings until the connection breaks.
func (l *link) live(ctx context.Context, c *caller, has map[Name]uint64) error {
	ticker := time.NewTicker(l.o.PingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-c.replies: // without being asked: it has closed, or is no nsqlookupd
			if ok {
				return errors.New("an answer came that nobody had asked for")
			}
			return c.err
		case <-ticker.C:
			if err := c.call([]string{"PING\n"}); err != nil {
				return err
			}
		case <-l.bell:
			if err := l.follow(c, has); err != nil {
				return err
			}
			select { // many changes at once are one look
			case <-time.After(l.o.SettleInterval):
			case <-ctx.Done():
			}
		}
	}
}

// introduce opens the protocol and says who the node is.
func (l *link) introduce(c *caller) error {
	s := &l.o.Self
	body, err := json.Marshal(map[string]any{
		"version": s.Version, "tcp_port": s.TCPPort, "http_port": s.HTTPPort, "hostname": s.Hostname,
		"broadcast_address": s.BroadcastAddress, "topology_zone": s.TopologyZone, "topology_region": s.TopologyRegion,
	})
	if err != nil {
		return err
	}
	hello := binary.BigEndian.AppendUint32([]byte(magic+"IDENTIFY\n"), uint32(len(body)))
	if err := c.write(append(hello, body...)); err != nil {
		return err
	}
	reply, err := c.reply()
	if err != nil {
		return fmt.Errorf("identify: %w", err)
	}
	var who identity
	if err := json.Unmarshal(reply, &who); err != nil {
		return fmt.Errorf("identify: it answers %.200q", reply)
	}
	if who.BroadcastAddress == "" || who.HTTPPort == 0 {
		l.log.Error("an nsqlookupd says no address for HTTP: it can't be asked for the channels of new topics")
		return nil
	}
	l.setHTTP(net.JoinHostPort(who.BroadcastAddress, strconv.Itoa(who.HTTPPort)))
	return nil
}

// follow brings the nsqlookupd from what it has been told, has, to what the
// node offers now.
func (l *link) follow(c *caller, has map[Name]uint64) error {
	offer := l.o.Offer()
	if err := c.call(commands("UNREGISTER", dropped(has, offer))); err != nil {
		return err
	}
	if err := c.call(commands("REGISTER", added(has, offer))); err != nil {
		return err
	}
	clear(has)
	maps.Copy(has, offer)
	return nil
}

// dropped lists what has gone, channels before their topics.
func dropped(has, offer map[Name]uint64) (gone []Name) {
	for n := range has {
		if _, still := offer[n]; !still {
			gone = append(gone, n)
		}
	}
	slices.SortFunc(gone, func(a, b Name) int { return byName(b, a) })
	return gone
}

// added lists what is new or made anew. A channel's registration is its topic's
// as well.
func added(has, offer map[Name]uint64) (fresh []Name) {
	implied := make(map[string]bool)
	for n, id := range offer {
		if had, ok := has[n]; n.Channel != "" && (!ok || had != id) {
			fresh = append(fresh, n)
			implied[n.Topic] = true
		}
	}
	for n, id := range offer {
		if had, ok := has[n]; n.Channel == "" && (!ok || had != id) && !implied[n.Topic] {
			fresh = append(fresh, n)
		}
	}
	slices.SortFunc(fresh, byName)
	return fresh
}

func byName(a, b Name) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	return strings.Compare(a.Channel, b.Channel)
}

func commands(verb string, names []Name) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.TrimSuffix(verb+" "+n.Topic+" "+n.Channel, " ") + "\n"
	}
	return out
}

// caller asks and gets answers in order. A goroutine reads, so that the end of
// the connection is known at once and not at the next ping.
type caller struct {
	nc      net.Conn
	timeout time.Duration
	replies chan []byte // closed when the connection has broken
	err     error       // why; set before replies is closed
	ended   chan struct{}
}

func (c *caller) read() {
	defer close(c.replies)
	in := bufio.NewReader(c.nc)
	for {
		reply, err := readReply(in)
		if err != nil {
			c.err = err
			return
		}
		select {
		case c.replies <- reply:
		case <-c.ended:
			return
		}
	}
}

func readReply(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > replyBytesMax {
		return nil, fmt.Errorf("an answer of %d bytes is too long", n)
	}
	reply := make([]byte, n)
	_, err := io.ReadFull(r, reply)
	return reply, err
}

func (c *caller) write(b []byte) error {
	if err := c.nc.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	_, err := c.nc.Write(b)
	return err
}

func (c *caller) reply() ([]byte, error) {
	select {
	case reply, ok := <-c.replies:
		if !ok {
			return nil, c.err
		}
		return reply, nil
	case <-time.After(c.timeout):
		return nil, fmt.Errorf("no answer within %s", c.timeout)
	}
}

// call sends commands and wants OK for each.
func (c *caller) call(commands []string) error {
	for batch := range slices.Chunk(commands, batchMax) {
		if err := c.write([]byte(strings.Join(batch, ""))); err != nil {
			return err
		}
		for _, command := range batch {
			reply, err := c.reply()
			if err != nil {
				return fmt.Errorf("%s: %w", strings.TrimSpace(command), err)
			}
			if string(reply) != "OK" {
				return fmt.Errorf("%s: it answers %.200q", strings.TrimSpace(command), reply)
			}
		}
	}
	return nil
}
