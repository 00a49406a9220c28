package tools

import (
	"context"
	"time"

	"github.com/nsqio/go-nsq"

	"github.com/tidings-io/tidings/internal/plant"
)

// fileLogger writes one topic's messages to files, and finishes them when they
// are on disk.
type fileLogger struct {
	consumer     *nsq.Consumer
	out          *output
	syncInterval time.Duration
	skipEmpty    bool
	logf         func(format string, args ...any)

	incoming chan *nsq.Message // holds as many as may be in flight
	hangup   chan struct{}
	done     chan struct{} // closed when run has ended

	unsynced []*nsq.Message // written and not finished; at most cap
}

func newFileLogger(c *nsq.Consumer, out *output, maxInFlight int) *fileLogger {
	return &fileLogger{
		consumer: c, out: out, logf: out.logf, incoming: make(chan *nsq.Message, maxInFlight), hangup: make(chan struct{}, 1),
		done: make(chan struct{}), unsynced: make([]*nsq.Message, 0, maxInFlight),
	}
}

// HandleMessage takes a message from go-nsq; its answer comes later.
func (l *fileLogger) HandleMessage(m *nsq.Message) error {
	m.DisableAutoResponse()
	select {
	case l.incoming <- m:
	case <-l.done:
	}
	return nil
}

// grace is how long a node that has no more to give waits for its answers, so
// that what it has given is written, and shares one fsync.
const grace = time.Millisecond

// run writes until ctx has ended and every message that came has its answer. An
// error of the disk ends it at once: what is not on disk then is not finished.
func (l *fileLogger) run(ctx context.Context) error {
	defer l.consumer.Stop()
	defer close(l.done)
	tick := time.NewTicker(l.syncInterval)
	defer tick.Stop()
	stopping, stop := false, ctx.Done()
	var soon <-chan time.Time
	for {
		var err error
		sync := true
		select {
		case <-l.consumer.StopChan:
			return l.end()
		case <-stop:
			stopping, stop = true, nil
			l.consumer.Stop()
		case <-l.hangup:
			if err = l.sync(); err == nil {
				err = l.out.close()
			}
		case <-tick.C:
			err = l.tick()
		case <-soon:
		case m := <-l.incoming:
			sync, err = l.take(m)
		}
		if err == nil && sync {
			soon = nil
			err = l.sync()
		}
		if err != nil {
			return err
		}
		if soon == nil && len(l.unsynced) > 0 && (stopping || l.consumer.IsStarved()) {
			soon = time.After(grace)
		}
	}
}

// tick begins the next file if it is time for it.
func (l *fileLogger) tick() error {
	switch {
	case !l.out.due():
		return nil
	case l.skipEmpty:
		return l.out.close()
	default:
		return l.out.rotate()
	}
}

// take writes a message; full says that it has to be synced now.
func (l *fileLogger) take(m *nsq.Message) (full bool, err error) {
	if l.out.due() {
		full = true
		if err := l.out.rotate(); err != nil {
			return false, err
		}
	}
	if err := l.out.write(m.Body); err != nil {
		return false, err
	}
	l.unsynced = append(l.unsynced, m)
	if plant.On("nsq-to-file-finishes-early") {
		m.Finish()
	}
	return full || len(l.unsynced) == cap(l.unsynced), nil
}

// sync makes what was written durable, and then finishes it.
func (l *fileLogger) sync() error {
	if len(l.unsynced) == 0 {
		return nil
	}
	if err := l.out.sync(); err != nil {
		return err
	}
	for i, m := range l.unsynced {
		m.Finish()
		l.unsynced[i] = nil
	}
	l.unsynced = l.unsynced[:0]
	return nil
}

// end writes what came last, and closes the file.
func (l *fileLogger) end() error {
	for {
		select {
		case m := <-l.incoming:
			full, err := l.take(m)
			if err == nil && full {
				err = l.sync()
			}
			if err != nil {
				return err
			}
			continue
		default:
		}
		if err := l.sync(); err != nil {
			return err
		}
		return l.out.close()
	}
}
