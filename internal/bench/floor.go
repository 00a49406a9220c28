package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/vfs"
)

// Floor measures what this machine could do at best, with the least code that
// does it: "near the limit" is a server's result over the floor's, and means
// the same on any machine.
type Floor struct {
	Dir      string        // the disk under it is measured
	Duration time.Duration // of each limit
	Progress *Progress
}

// Limit is one of the machine's limits.
type Limit struct {
	Name string  `json:"name"`
	Text string  `json:"text"`
	Size int     `json:"size,omitempty"`          // bytes of a message
	Rate float64 `json:"rate,omitempty"`          // messages per second
	Disk float64 `json:"bytes_per_sec,omitempty"` // bytes per second
	P50  float64 `json:"p50_us,omitempty"`        // of one operation, microseconds
	P99  float64 `json:"p99_us,omitempty"`
}

const (
	floorFile  = 128 << 20 // bytes of the file that is written over, as a recycled log is
	floorChunk = 64 << 10  // bytes of one read or write of a socket
	floorGroup = 1 << 20   // most bytes of one group that is synced together
)

// Do measures all limits, one after the other.
func (f Floor) Do(ctx context.Context) (limits []Limit, err error) {
	fs := vfs.OS{}
	var files [floorWriters]vfs.File
	for i := range files {
		name := filepath.Join(f.Dir, "bench-floor-"+randomName())
		file, err := fs.Create(name)
		if err != nil {
			return nil, fmt.Errorf("make file: %w", err)
		}
		files[i] = file
		defer func() { err = errors.Join(err, file.Close(), fs.Remove(name)) }()
	}
	return f.all(ctx, files)
}

func (f Floor) all(ctx context.Context, files [floorWriters]vfs.File) ([]Limit, error) {
	f.Progress.prefix("floor")
	f.Progress.begin("write files", 0)
	for _, file := range files {
		if err := fillFile(file); err != nil {
			return nil, err
		}
	}
	file := files[0]
	type step struct {
		name, text string
		size       int
		measure    func(ctx context.Context, file vfs.File, l *Limit) error
	}
	steps := []step{
		{"fdatasync", "write 4 KiB over old blocks + fdatasync", 0, f.sync},
		{"disk", "write 1 MiB over old blocks + fdatasync, one after the other", 0, f.disk},
		{"ping-pong", "small request and answer over loopback TCP", 0, f.pingPong},
	}
	for _, size := range []int{200, 1024} {
		steps = append(steps,
			step{"receive", "receive frames over loopback TCP", size, f.intake(nil)},
			step{"append", "receive frames, CRC, write to a file", size, f.intake(appendOnly)},
			step{"durable", "receive frames, CRC, write to a file, group fdatasync", size, f.intake(appendSync)},
			step{"replicated", "three at once, each as durable and with a file of its own; rate of one of them", size, f.writers(files)},
			step{"socket", "read a file, send frames over loopback TCP", size, f.outlet},
		)
	}
	var limits []Limit
	for _, s := range steps {
		l := Limit{Name: s.name, Text: s.text, Size: s.size}
		if s.size > 0 {
			l.Name = fmt.Sprintf("%s-%d", s.name, s.size)
			l.Text += ", " + sizeText(s.size)
		}
		f.Progress.begin(l.Text, 0)
		if err := s.measure(ctx, file, &l); err != nil {
			return nil, fmt.Errorf("measure %s: %w", l.Name, err)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		limits = append(limits, l)
	}
	return limits, nil
}

// fillFile writes every block once: blocks that have been written are quicker
// to write over.
func fillFile(file vfs.File) error {
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * 31)
	}
	for at := int64(0); at < floorFile; at += int64(len(block)) {
		if _, err := file.WriteAt(block, at); err != nil {
			return fmt.Errorf("write file: %w", err)
		}
	}
	return file.Sync()
}

// writes measures write + fdatasync of blocks of n bytes.
func (f Floor) writes(ctx context.Context, file vfs.File, n int, l *Limit) error {
	block, h := make([]byte, n), histogram()
	start, at := time.Now(), int64(0)
	for time.Since(start) < f.Duration && ctx.Err() == nil {
		begun := time.Now()
		if _, err := file.WriteAt(block, at%floorFile); err != nil {
			return err
		}
		if err := file.SyncData(); err != nil {
			return err
		}
		record(h, int64(time.Since(begun)))
		at += int64(n)
	}
	s := summary("", h)
	l.P50, l.P99, l.Disk = s.P50, s.P99, float64(at)/time.Since(start).Seconds()
	return nil
}

func (f Floor) sync(ctx context.Context, file vfs.File, l *Limit) error {
	return f.writes(ctx, file, 4<<10, l)
}

func (f Floor) disk(ctx context.Context, file vfs.File, l *Limit) error {
	return f.writes(ctx, file, 1<<20, l)
}

// pipe is a TCP connection over loopback.
func pipe() (a, b net.Conn, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	if a, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		return nil, nil, err
	}
	if b, err = listener.Accept(); err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

func (f Floor) pingPong(ctx context.Context, _ vfs.File, l *Limit) error {
	a, b, err := pipe()
	if err != nil {
		return err
	}
	echoed := make(chan struct{})
	go func() {
		defer close(echoed)
		_, _ = io.Copy(struct{ io.Writer }{b}, struct{ io.Reader }{b}) // ends with the connection
	}()
	defer func() { a.Close(); <-echoed; b.Close() }()
	h, buf := histogram(), make([]byte, 16)
	for start := time.Now(); time.Since(start) < f.Duration && ctx.Err() == nil; {
		begun := time.Now()
		if _, err := a.Write(buf); err != nil {
			return err
		}
		if _, err := io.ReadFull(a, buf); err != nil {
			return err
		}
		record(h, int64(time.Since(begun)))
	}
	s := summary("", h)
	l.P50, l.P99 = s.P50, s.P99
	return nil
}

// sink takes what was received, a group at a time, and says so when it is safe.
type sink func(file vfs.File) (put func(group []byte) error)

func appendOnly(file vfs.File) func([]byte) error {
	at := int64(0)
	return func(group []byte) error {
		if at+int64(len(group)) > floorFile {
			at = 0
		}
		_, err := file.WriteAt(group, at)
		at += int64(len(group))
		return err
	}
}

func appendSync(file vfs.File) func([]byte) error {
	put := appendOnly(file)
	return func(group []byte) error {
		if err := put(group); err != nil {
			return err
		}
		return file.SyncData()
	}
}

// intake measures receiving: one connection, frames of a length and a body.
// With a sink, bodies are copied and summed, and the sink runs beside the
// receiver: what comes meanwhile is the next group.
func (f Floor) intake(to sink) func(context.Context, vfs.File, *Limit) error {
	return func(ctx context.Context, file vfs.File, l *Limit) error {
		a, b, err := pipe()
		if err != nil {
			return err
		}
		defer b.Close()
		sent := make(chan error, 1)
		go func() { sent <- sendFrames(ctx, a, l.Size, f.Duration) }()
		start := time.Now()
		var n int64
		if to == nil {
			n, err = receive(b, l.Size, nil)
		} else {
			n, err = receiveInto(b, l.Size, to(file))
		}
		took := time.Since(start).Seconds()
		b.Close()
		l.Rate, l.Disk = float64(n)/took, float64(n)*float64(l.Size)/took
		return errors.Join(err, <-sent)
	}
}

// floorWriters is how often a cluster of three writes a message.
const floorWriters = clusterNodes

// writers measures several that take the same at once, as the nodes of a cluster
// do on one machine: the rate is that of one of them, on average.
func (f Floor) writers(files [floorWriters]vfs.File) func(context.Context, vfs.File, *Limit) error {
	return func(ctx context.Context, _ vfs.File, l *Limit) error {
		var each [floorWriters]Limit
		var g errgroup.Group
		for i := range files {
			each[i].Size = l.Size
			g.Go(func() error { return f.intake(appendSync)(ctx, files[i], &each[i]) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for _, one := range each {
			l.Rate += one.Rate / floorWriters
			l.Disk += one.Disk / floorWriters
		}
		return nil
	}
}

// sendFrames sends as fast as it goes, in large writes, and closes.
func sendFrames(ctx context.Context, w net.Conn, size int, d time.Duration) error {
	defer w.Close()
	var chunk []byte
	for len(chunk) < floorChunk {
		chunk = binary.BigEndian.AppendUint32(chunk, uint32(size))
		chunk = append(chunk, make([]byte, size)...)
	}
	for start := time.Now(); time.Since(start) < d && ctx.Err() == nil; {
		if _, err := w.Write(chunk); err != nil {
			return err
		}
	}
	return nil
}

// receive counts frames until the connection ends.
func receive(r io.Reader, size int, each func(body []byte) error) (n int64, err error) {
	buf, have := make([]byte, floorChunk+4+size), 0
	for {
		got, err := r.Read(buf[have:])
		have += got
		at := 0
		for have-at >= 4 {
			length := int(binary.BigEndian.Uint32(buf[at:]))
			if length != size {
				return n, fmt.Errorf("frame of %d bytes, want %d", length, size)
			}
			if have-at < 4+length {
				break
			}
			if each != nil {
				if err := each(buf[at+4 : at+4+length]); err != nil {
					return n, err
				}
			}
			at += 4 + length
			n++
		}
		have = copy(buf, buf[at:have])
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// receiveInto receives into groups; a second goroutine puts them away.
func receiveInto(r io.Reader, size int, put func([]byte) error) (n int64, err error) {
	full, empty, done := make(chan []byte, 1), make(chan []byte, 2), make(chan error, 1)
	empty <- make([]byte, 0, floorGroup)
	empty <- make([]byte, 0, floorGroup)
	go func() {
		var err error
		for group := range full {
			if err == nil {
				err = put(group)
			}
			empty <- group[:0]
		}
		done <- err
	}()
	group := <-empty
	var sum uint32
	hand := func() {
		sum ^= crc32.Checksum(group, castagnoli)
		full <- group
		group = <-empty
	}
	n, err = receive(r, size, func(body []byte) error {
		if len(group)+len(body) > cap(group) {
			hand()
		}
		group = append(group, body...)
		return nil
	})
	hand()
	close(full)
	return n, errors.Join(err, <-done)
}

// outlet measures delivery: a file is read in large pieces, each message gets a
// frame with NSQ's header, and the frames go to a reader that only counts.
func (f Floor) outlet(ctx context.Context, file vfs.File, l *Limit) error {
	a, b, err := pipe()
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- sendFile(ctx, a, file, l.Size, f.Duration) }()
	start := time.Now()
	n, err := receive(b, 4+nsqHead+nsqID+l.Size, nil)
	took := time.Since(start).Seconds()
	b.Close()
	l.Rate, l.Disk = float64(n)/took, float64(n)*float64(l.Size)/took
	return errors.Join(err, <-sent)
}

func sendFile(ctx context.Context, w net.Conn, file vfs.File, size int, d time.Duration) error {
	defer w.Close()
	in, out := make([]byte, floorChunk/size*size), make([]byte, 0, 2*floorChunk)
	at := int64(0)
	for start := time.Now(); time.Since(start) < d && ctx.Err() == nil; {
		if at+int64(len(in)) > floorFile {
			at = 0
		}
		if _, err := file.ReadAt(in, at); err != nil {
			return err
		}
		at += int64(len(in))
		out = out[:0]
		for i := 0; i < len(in); i += size {
			out = binary.BigEndian.AppendUint32(out, uint32(4+nsqHead+nsqID+size))
			out = binary.BigEndian.AppendUint32(out, nsqMessage)
			out = append(out, make([]byte, nsqHead+nsqID)...)
			out = append(out, in[i:i+size]...)
		}
		if _, err := w.Write(out); err != nil {
			return err
		}
	}
	return nil
}

// FloorName is the machine's limit as a system in ratios and requirements.
const FloorName = "floor"

// floorRows gives each of our rows the limit that it is measured against.
func floorRows(limits []Limit, rows []Row) []Row {
	byName := make(map[string]Limit)
	for _, l := range limits {
		byName[l.Name] = l
	}
	var out []Row
	for _, r := range rows {
		if !ours(r.System) {
			continue
		}
		row := Row{ID: r.ID, Workload: r.Workload, System: FloorName}
		var l Limit
		var ok bool
		switch w := r.Workload; {
		case w.Name == "batch":
			l, ok = byName[fmt.Sprintf("durable-%d", w.Size)]
		case w.Name == "cluster-batch":
			l, ok = byName[fmt.Sprintf("replicated-%d", w.Size)]
		case w.Name == "drain":
			l, ok = byName[fmt.Sprintf("socket-%d", w.Size)]
		case w.Name == "publish" && w.Publishers == 1:
			l, ok = byName["fdatasync"]
			row.Latency = &Latency{P50: l.P50, P99: l.P99}
		}
		if ok {
			row.Rate = l.Rate
			out = append(out, row)
		}
	}
	return out
}
