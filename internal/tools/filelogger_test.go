package tools

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsqio/go-nsq"
)

// disk stands between a logger and its node: it knows what an fsync has made
// durable, and holds every finished message against that.
type disk struct {
	t      *testing.T
	dir    string
	hidden bool // finds fault quietly

	mu       sync.Mutex
	durable  string
	finished int
	faults   int
}

func (d *disk) fsync(f *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, text := range folder(d.t, d.dir) {
		d.durable += text
	}
	return f.Sync()
}

// OnFinish is go-nsq's: the message was finished.
func (d *disk) OnFinish(m *nsq.Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finished++
	if !strings.Contains(d.durable, string(m.Body)+"\n") {
		d.faults++
		if !d.hidden {
			d.t.Errorf("%s is finished and not on disk", m.Body)
		}
	}
}

// OnRequeue is go-nsq's: the message was given back.
func (d *disk) OnRequeue(m *nsq.Message, _ time.Duration, _ bool) {
	d.t.Errorf("%s is given back", m.Body)
}

// OnTouch is go-nsq's.
func (d *disk) OnTouch(*nsq.Message) {}

func (d *disk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.finished
}

// testLogger is a logger whose consumer is connected to nobody.
func testLogger(t *testing.T, d *disk, inFlight int, every time.Duration, c outputConfig) *fileLogger {
	t.Helper()
	o, _ := testOutput(t, d.dir, false, c)
	o.now, o.fsync = time.Now, d.fsync
	consumer, err := nsq.NewConsumer("t", "c", nsq.NewConfig())
	if err != nil {
		t.Fatal(err)
	}
	consumer.SetLogger(nil, nsq.LogLevelError)
	l := newFileLogger(consumer, o, inFlight)
	l.syncInterval = every
	consumer.AddHandler(l)
	return l
}

func (l *fileLogger) feed(t *testing.T, d *disk, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		m := nsq.NewMessage(nsq.MessageID{}, fmt.Appendf(nil, "message-%d", i))
		m.Delegate = d
		if err := l.HandleMessage(m); err != nil {
			t.Fatal(err)
		}
	}
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// logAll drives a logger through all that makes it sync.
func logAll(t *testing.T, d *disk, c outputConfig) {
	t.Helper()
	l := testLogger(t, d, 10, 5*time.Millisecond, c)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- l.run(ctx) }()
	l.feed(t, d, 0, 25)
	waitFor(t, "the interval passes and messages are not finished", func() bool { return d.count() == 25 })
	l.hangup <- struct{}{}
	l.feed(t, d, 25, 33)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if d.count() != 33 {
		t.Errorf("%d finished, want 33", d.count())
	}
}

func TestFinishedIsOnDisk(t *testing.T) {
	for name, c := range map[string]outputConfig{
		"plain": {}, "gzip": {gzip: true}, "rotated": {rotateSize: 50}, "gzip rotated": {gzip: true, rotateSize: 50},
	} {
		t.Run(name, func(t *testing.T) { logAll(t, &disk{t: t, dir: t.TempDir()}, c) })
	}
}

func TestFullWindowIsSynced(t *testing.T) {
	d := &disk{t: t, dir: t.TempDir()}
	l := testLogger(t, d, 10, time.Hour, outputConfig{})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.run(ctx) }()
	l.feed(t, d, 0, 1) // a new file is synced with its first message
	waitFor(t, "the first message is not finished", func() bool { return d.count() == 1 })
	l.feed(t, d, 1, 11)
	waitFor(t, "a full window is not finished", func() bool { return d.count() == 11 })
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsFinishedAfterADiskError(t *testing.T) {
	d := &disk{t: t, dir: t.TempDir()}
	l := testLogger(t, d, 10, time.Hour, outputConfig{})
	broken := errors.New("broken disk")
	l.out.fsync = func(*os.File) error { return broken }
	ended := make(chan error, 1)
	go func() { ended <- l.run(t.Context()) }()
	l.feed(t, d, 0, 10)
	if err := <-ended; !errors.Is(err, broken) {
		t.Errorf("ends with %v", err)
	}
	l.feed(t, d, 10, 30) // nobody takes them, and nobody waits
	if d.count() != 0 {
		t.Errorf("%d messages finished", d.count())
	}
}

func TestEmptyFiles(t *testing.T) {
	for _, skip := range []bool{true, false} {
		d := &disk{t: t, dir: t.TempDir()}
		must(t, os.MkdirAll(filepath.Join(d.dir, "out"), 0o700))
		l := testLogger(t, d, 10, time.Hour, outputConfig{gzip: true})
		l.skipEmpty = skip
		must(t, l.tick(), l.tick(), l.out.close())
		if n := len(folder(t, d.dir)); n != map[bool]int{true: 0, false: 1}[skip] {
			t.Errorf("skip-empty-files=%v makes %d files", skip, n)
		}
		l.consumer.Stop()
	}
}
