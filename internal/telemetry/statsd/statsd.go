// Package statsd sends a node's figures to a statsd daemon over UDP, under
// nsqd's names: counters as what was added since the last report, gauges as
// they are. A report is cut into packets, which are spread over the interval.
//
// Two things are better than with nsqd: a gauge of a topic or channel that is
// gone is sent once more, as 0, so that a graph does not stand still at its last
// value; and a topic that was made anew does not begin with a negative count.
package statsd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"
)

// Options of a Sender. All but Logger must be set.
type Options struct {
	Address    string        // HOST:PORT of the daemon; looked up for every report
	Prefix     string        // of every name; see Prefix
	Interval   time.Duration // between two reports
	PacketSize int           // most bytes of one packet; a longer line goes alone
	MemStats   bool          // send Report.Memory too
	// ExcludeEphemeral leaves out what is Ephemeral.
	ExcludeEphemeral bool
	// Source makes a report. ctx bounds the wait.
	Source func(ctx context.Context) (*Report, error)
	Logger *slog.Logger // nil: none
}

// Prefix fills in a prefix as nsqd does: every %s becomes the host and port with
// _ for dots and colons, and a dot stands at the end. An empty one stays so.
func Prefix(text, host, port string) string {
	if text == "" {
		return ""
	}
	at := strings.NewReplacer(".", "_", ":", "_").Replace(net.JoinHostPort(host, port))
	text = strings.ReplaceAll(text, "%s", at)
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}

// Sender reports while it runs.
type Sender struct {
	o        Options
	log      *slog.Logger
	builder  builder
	troubled bool // the last report failed
}

// New makes a sender; it sends when Run is called.
func New(o Options) *Sender {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Sender{o: o, log: log, builder: newBuilder(&o)}
}

// Run reports every interval until ctx ends; then the packets of a report under
// way are sent at once.
func (s *Sender) Run(ctx context.Context) error {
	tick := time.NewTicker(s.o.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := s.report(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if (err != nil) != s.troubled {
			s.troubled = err != nil
			if err != nil {
				s.log.Warn("report to statsd", "address", s.o.Address, "error", err)
			} else {
				s.log.Info("report to statsd again", "address", s.o.Address)
			}
		}
	}
}

// patience bounds how long a report is waited for.
const patience = 5 * time.Second

// report makes a report and sends it. What nobody listens to is no error of
// every report, with UDP: only that the daemon can't be named is.
func (s *Sender) report(ctx context.Context) error {
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := s.o.Source(asked)
	if err != nil {
		return fmt.Errorf("gather figures: %w", err)
	}
	conn, err := new(net.Dialer).DialContext(asked, "udp", s.o.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	return s.spread(ctx, conn, s.builder.packets(r))
}

// spread sends the packets over most of the interval.
func (s *Sender) spread(ctx context.Context, conn net.Conn, packets [][]byte) (err error) {
	if len(packets) == 0 {
		return nil
	}
	over := s.o.Interval - min(time.Second, s.o.Interval/4)
	tick := time.NewTicker(max(over/time.Duration(len(packets)), 1))
	defer tick.Stop()
	for i, p := range packets {
		if _, e := conn.Write(p); e != nil {
			err = e // of the packet before, on Linux: the others may still come
		}
		if i == len(packets)-1 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done(): // the rest at once
		}
	}
	return err
}
