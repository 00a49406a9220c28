package tools

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidings-io/tidings/internal/vfs"
)

// outputConfig says where files go, and when the next one begins.
type outputConfig struct {
	outputDir, workDir string // the same, or files are moved when they are finished
	format             string // name of a file
	datetime           string // for strftime
	gzip               bool
	gzipLevel          int           // 1 to 9
	rotateSize         int64         // bytes before compression; 0: no bound
	rotateInterval     time.Duration // 0: no bound
}

// numbered says that a file may not go on where another ended, so that its name
// needs a revision.
func (c *outputConfig) numbered() bool {
	return c.gzip || c.rotateSize > 0 || c.rotateInterval > 0 || c.workDir != c.outputDir
}

// exclusive says that a file that exists already is never written to.
func (c *outputConfig) exclusive() bool { return c.gzip || c.rotateInterval > 0 }

// fileFormat fills in what is the same for all files of a topic; <DATETIME>
// and <REV> stay.
func (c *outputConfig) fileFormat(topic, host string) (string, error) {
	name := c.format
	switch {
	case !c.numbered():
		name = strings.ReplaceAll(name, "<REV>", "")
	case !strings.Contains(name, "<REV>"):
		return "", usagef("--filename-format %q needs <REV>, because --gzip, rotation and --work-dir make several files of one name", name)
	}
	name = strings.NewReplacer("<TOPIC>", topic, "<HOST>", host, "<PID>", fmt.Sprint(os.Getpid())).Replace(name)
	if c.gzip && !strings.HasSuffix(name, ".gz") {
		name += ".gz"
	}
	return name, nil
}

// output is the row of files of one topic, of which at most one is open. It
// belongs to one goroutine.
type output struct {
	outputConfig
	name string // of fileFormat
	now  func() time.Time
	logf func(format string, args ...any)

	file   *os.File // nil: none is open
	to     io.Writer
	buffer *bufio.Writer // under to
	zip    *gzip.Writer  // under to, if files are compressed
	dirty  bool          // something was written since the last sync
	opened time.Time
	size   int64 // bytes, before compression

	current string // name of the open file or the last one, <REV> in it
	rev     int    // of that file
	path    string // of that file, below outputDir or workDir

	fsync func(*os.File) error // a test's own
}

func newOutput(c outputConfig, name string, logf func(string, ...any)) *output {
	return &output{outputConfig: c, name: name, now: time.Now, logf: logf, fsync: (*os.File).Sync}
}

// due says that a message, if one comes now, belongs in another file than the
// open one.
func (o *output) due() bool {
	switch {
	case o.file == nil:
		return true
	case o.nameNow() != o.current:
		o.logf("%s: the next file has another name", o.path)
	case o.rotateInterval > 0 && o.now().Sub(o.opened) > o.rotateInterval:
		o.logf("%s: open since %s", o.path, o.opened.Format(time.RFC3339))
	case o.rotateSize > 0 && o.size > o.rotateSize:
		o.logf("%s: has %d bytes", o.path, o.size)
	default:
		return false
	}
	return true
}

func (o *output) nameNow() string {
	return strings.ReplaceAll(o.name, "<DATETIME>", strftime(o.datetime, o.now()))
}

// rotate closes the open file and opens the next.
func (o *output) rotate() error {
	if err := o.close(); err != nil {
		return err
	}
	name := o.nameNow()
	if name == o.current {
		o.rev++
	} else {
		o.current, o.rev = name, 0
	}
	for ; ; o.rev++ {
		o.path = withRevision(name, o.rev)
		ok, err := o.open()
		if err != nil {
			return fmt.Errorf("open %s: %w", filepath.Join(o.workDir, o.path), err)
		}
		if ok {
			o.logf("%s: opened", o.file.Name())
			return nil
		}
	}
}

func withRevision(name string, rev int) string {
	return strings.ReplaceAll(name, "<REV>", fmt.Sprintf("-%06d", rev))
}

// open opens the file at o.path; false: it is taken, or full.
func (o *output) open() (ok bool, err error) {
	path := filepath.Join(o.workDir, o.path)
	if err := makeDir(filepath.Dir(path)); err != nil {
		return false, err
	}
	if o.workDir != o.outputDir {
		finished := filepath.Join(o.outputDir, o.path)
		if err := makeDir(filepath.Dir(finished)); err != nil {
			return false, err
		}
		if _, err := os.Stat(finished); err == nil {
			o.logf("%s: exists already", finished)
			return false, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	flags := os.O_RDWR | os.O_CREATE | os.O_APPEND
	if o.exclusive() {
		flags |= os.O_EXCL
	}
	f, err := os.OpenFile(path, flags, 0o666)
	if o.exclusive() && errors.Is(err, fs.ErrExist) {
		o.logf("%s: exists already", path)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	ok, err = o.begin(f)
	if err != nil || !ok {
		err = errors.Join(err, f.Close())
	}
	return ok, err
}

// begin takes an opened file; false: it is full.
func (o *output) begin(f *os.File) (ok bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if o.rotateSize > 0 && info.Size() > o.rotateSize {
		return false, nil
	}
	if err := endLine(f, info.Size()); err != nil {
		return false, err
	}
	// the file's name has to be as durable as what will be in it
	if err := (vfs.OS{}).SyncDir(filepath.Dir(f.Name())); err != nil {
		return false, err
	}
	o.file, o.size, o.opened, o.dirty = f, info.Size(), o.now(), false
	o.buffer = bufio.NewWriterSize(f, 64<<10)
	o.to, o.zip = o.buffer, nil
	if o.gzip {
		if o.zip, err = gzip.NewWriterLevel(o.buffer, o.gzipLevel); err != nil {
			return false, err
		}
		o.to = o.zip
	}
	return true, nil
}

// endLine ends the piece of a line with which a killed process left the file,
// so that the next message has a line of its own.
func endLine(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	_, err := f.Write([]byte("\n"))
	return err
}

// write adds a message to the open file, as a line.
func (o *output) write(body []byte) error {
	o.dirty = true
	n, err := o.to.Write(body)
	if err == nil {
		_, err = o.to.Write([]byte("\n"))
	}
	o.size += int64(n) + 1
	if err != nil {
		return fmt.Errorf("write %s: %w", o.file.Name(), err)
	}
	return nil
}

// sync makes all that was written durable. Of a compressed file that is a whole
// gzip member, to which others are added: what comes before can be read
// whatever becomes of the rest.
func (o *output) sync() error {
	if o.file == nil || !o.dirty {
		return nil
	}
	if o.zip != nil {
		if err := o.zip.Close(); err != nil {
			return fmt.Errorf("write %s: %w", o.file.Name(), err)
		}
		o.zip.Reset(o.buffer)
	}
	if err := o.buffer.Flush(); err != nil {
		return fmt.Errorf("write %s: %w", o.file.Name(), err)
	}
	if err := o.fsync(o.file); err != nil {
		return fmt.Errorf("fsync %s: %w", o.file.Name(), err)
	}
	o.dirty = false
	return nil
}

// close syncs and closes the open file, if there is one, and moves it out of
// the work folder.
func (o *output) close() error {
	if o.file == nil {
		return nil
	}
	if o.zip != nil && o.size == 0 {
		o.dirty = true // no bytes are no gzip file, an empty member is
	}
	if err := o.sync(); err != nil {
		return err
	}
	if err := o.file.Close(); err != nil {
		return fmt.Errorf("close %s: %w", o.file.Name(), err)
	}
	o.file = nil
	if o.workDir == o.outputDir {
		return nil
	}
	return o.deliver()
}

// deliver moves the finished file to the output folder, where it never takes
// another one's place.
func (o *output) deliver() error {
	from, path := filepath.Join(o.workDir, o.path), o.path
	for rev := o.rev + 1; ; rev++ {
		to := filepath.Join(o.outputDir, path)
		err := moveFile(from, to)
		if err == nil {
			o.logf("%s: finished, moved to %s", from, to)
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("move %s to %s: %w", from, to, err)
		}
		o.logf("%s: exists already", to)
		path = withRevision(o.current, rev)
	}
}

// moveFile renames a file unless the new name is taken, and makes that durable.
func moveFile(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	if err := (vfs.OS{}).SyncDir(filepath.Dir(to)); err != nil {
		return err
	}
	if err := os.Remove(from); err != nil {
		return err
	}
	return vfs.OS{}.SyncDir(filepath.Dir(from))
}

// makeDir makes a folder, and its name durable.
func makeDir(dir string) error {
	return vfs.MkdirSynced(vfs.OS{}, filepath.ToSlash(dir))
}
