package seglog

import (
	"fmt"
	"path"
	"strconv"

	"github.com/tidings-io/tidings/internal/vfs"
)

// Entry is what Inspect finds at one place of a segment file: a batch, or
// damage, or the unfinished end that a crash leaves.
type Entry struct {
	ID         LogID
	File       string
	Pos        int64 // bytes
	Size       int64 // bytes, the prefix included
	Batch      Batch // the batch; Data is good only during the call
	Damage     string
	First      int64 // offsets that damage may have taken, none if First > Last;
	Last       int64 // math.MaxInt64 when not known
	Unfinished bool  // damage that nothing whole follows, in a segment that was not sealed
}

// Report sums up what Verify found.
type Report struct {
	Logs, Files, Sealed     int
	Batches, Records, Bytes int64
	Unfinished              int     // files with an unfinished end; no loss
	Damaged                 []Entry // without Data
}

// Verify reads every segment below a store's folder and checks every checksum.
// No store may be open on it. It changes nothing.
func Verify(fs vfs.FS, dir string) (Report, error) {
	var r Report
	err := inspect(fs, dir, &r, func(e Entry) error {
		switch {
		case e.Unfinished:
			r.Unfinished++
		case e.Damage != "":
			e.Batch.Data = nil
			r.Damaged = append(r.Damaged, e)
		default:
			r.Batches++
			r.Records += int64(e.Batch.Count)
			r.Bytes += e.Size
		}
		return nil
	})
	return r, err
}

// Inspect calls fn for every batch and every damage below a store's folder, log
// by log and in the order of offsets. No store may be open on it. An error of
// fn ends it and is returned.
func Inspect(fs vfs.FS, dir string, fn func(Entry) error) error {
	return inspect(fs, dir, &Report{}, fn)
}

func inspect(fs vfs.FS, dir string, r *Report, fn func(Entry) error) error {
	topics, err := readDir(fs, dir)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	for _, topic := range topics {
		inc, err := strconv.ParseUint(topic, 10, 64)
		if err != nil {
			continue
		}
		parts, err := readDir(fs, path.Join(dir, topic))
		if err != nil {
			return fmt.Errorf("list partitions: %w", err)
		}
		for _, part := range parts {
			n, err := strconv.ParseInt(part, 10, 32)
			if err != nil {
				continue
			}
			r.Logs++
			if err := inspectLog(fs, dir, LogID{inc, int32(n)}, r, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

func inspectLog(fs vfs.FS, root string, id LogID, r *Report, fn func(Entry) error) error {
	names, err := readDir(fs, id.dir(root))
	if err != nil {
		return fmt.Errorf("list segments: %w", err)
	}
	for _, name := range names {
		first, _, ok := parseName(name)
		if !ok {
			continue
		}
		r.Files++
		if err := inspectFile(fs, path.Join(id.dir(root), name), id, first, r, fn); err != nil {
			return err
		}
	}
	return nil
}

func inspectFile(fs vfs.FS, name string, id LogID, first int64, r *Report, fn func(Entry) error) error {
	file, err := fs.Open(name)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return fmt.Errorf("read segment: %w", err)
	}
	var b [headerSize]byte
	if _, err := readFull(file, b[:], 0); err != nil {
		return fmt.Errorf("read segment: %w", err)
	}
	at := Entry{ID: id, File: name}
	h, ok := parseHeader(b[:])
	switch {
	case !ok:
		e := at
		e.Size, e.Damage, e.First, e.Last, e.Unfinished = headerSize, "segment header", 0, -1, size < headerSize
		if err := fn(e); err != nil {
			return err
		}
	case h.version != segmentVersion:
		return fmt.Errorf("read segment %s: format version %d is not known", name, h.version)
	}
	free, sealed, err := findFooter(file, id.seed(), size)
	if err != nil {
		return err
	}
	if sealed {
		r.Sealed++
	}
	v := anyOffset(free)
	v.first = first
	return inspectFrames(file, id, v, sealed, at, fn)
}

func inspectFrames(file vfs.File, id LogID, v view, sealed bool, at Entry, fn func(Entry) error) error {
	w := walk(file, id.seed(), v, mark{}, false)
	defer w.free()
	for {
		it, ok, err := w.next()
		if err != nil {
			return fmt.Errorf("read segment %s: %w", at.File, err)
		}
		if !ok {
			return nil
		}
		e := at
		e.Pos, e.Size = it.pos, it.end-it.pos
		if it.damaged {
			e.Damage, e.First, e.Last = "prefix checksum", it.from, it.to
			e.Unfinished = !sealed && it.end == v.size
		} else {
			body, err := w.body(&it.frame)
			if err != nil {
				return fmt.Errorf("read segment %s: %w", at.File, err)
			}
			e.Batch = it.batch(body)
			if body == nil || !intact(body) {
				e.Damage, e.First, e.Last = "batch checksum", it.base, it.last()
				e.Unfinished = !sealed && it.end == v.size
			}
		}
		if err := fn(e); err != nil {
			return err
		}
	}
}

// findFooter says where the frames of a file end, and whether a whole footer
// stands there.
func findFooter(file vfs.File, seed uint32, size int64) (free int64, sealed bool, err error) {
	var tail [4]byte
	if size < headerSize+footerFixed {
		return size, false, nil
	}
	if _, err := readFull(file, tail[:], size-4); err != nil {
		return 0, false, fmt.Errorf("read footer: %w", err)
	}
	n := int64(uint32(tail[0])<<24 | uint32(tail[1])<<16 | uint32(tail[2])<<8 | uint32(tail[3]))
	if n < footerFixed || n > size-headerSize {
		return size, false, nil
	}
	b := make([]byte, n)
	if _, err := readFull(file, b, size-n); err != nil {
		return 0, false, fmt.Errorf("read footer: %w", err)
	}
	if _, ok := parseFooter(b, seed, size-n); !ok {
		return size, false, nil
	}
	return size - n, true, nil
}
