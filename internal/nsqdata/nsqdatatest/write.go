// Package nsqdatatest writes data folders as an nsqd leaves them, for tests.
package nsqdatatest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Message is one of nsqd's.
type Message struct {
	N         uint64 // its id
	Timestamp int64  // unix ns; 0: N
	Attempts  uint16
	Body      string // empty: "message N"
}

// Text is the body.
func (m Message) Text() string {
	if m.Body == "" {
		return fmt.Sprint("message ", m.N)
	}
	return m.Body
}

// Folder is a folder to be.
type Folder struct {
	t    testing.TB
	Path string
	meta metadata
}

type metadata struct {
	Topics  []*Topic `json:"topics"`
	Version string   `json:"version"`
}

// Topic is a topic in nsqd.dat.
type Topic struct {
	Name     string     `json:"name"`
	Paused   bool       `json:"paused"`
	Channels []*Channel `json:"channels"`
}

// Channel is a channel in nsqd.dat.
type Channel struct {
	Name   string `json:"name"`
	Paused bool   `json:"paused"`
}

// New makes an empty folder.
func New(t testing.TB) *Folder {
	return &Folder{t: t, Path: t.TempDir(), meta: metadata{Version: "1.3.0"}}
}

func (f *Folder) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// Topic enters a topic into nsqd.dat; a name of a channel that begins with ! is
// paused.
func (f *Folder) Topic(name string, paused bool, channels ...string) {
	t := &Topic{Name: name, Paused: paused}
	for _, c := range channels {
		t.Channels = append(t.Channels, &Channel{Name: trim(c), Paused: c[0] == '!'})
	}
	f.meta.Topics = append(f.meta.Topics, t)
	data, err := json.Marshal(f.meta)
	f.ok(err)
	f.ok(os.WriteFile(filepath.Join(f.Path, "nsqd.dat"), data, 0o600))
}

func trim(c string) string {
	if c[0] == '!' {
		return c[1:]
	}
	return c
}

// Queue writes a queue of files of up to fileMax bytes, of which the first read
// messages were read. Files that were read to their end are removed, as nsqd does.
func (f *Folder) Queue(name string, fileMax, read int, messages ...Message) {
	f.t.Helper()
	type place struct{ file, pos int }
	var files [][]byte
	var places []place // behind each message
	for _, m := range messages {
		r := Record(m)
		if n := len(files); n == 0 || len(files[n-1])+len(r) > fileMax {
			files = append(files, nil)
		}
		n := len(files) - 1
		files[n] = append(files[n], r...)
		places = append(places, place{n, len(files[n])})
	}
	at, end := place{}, place{}
	if len(places) > 0 {
		end = places[len(places)-1]
	}
	if read > 0 {
		at = places[read-1]
	}
	if at.file < end.file && at.pos == len(files[at.file]) {
		at = place{file: at.file + 1}
	}
	for i := at.file; i < len(files); i++ {
		f.ok(os.WriteFile(filepath.Join(f.Path, Data(name, i)), files[i], 0o600))
	}
	f.Meta(name, len(messages)-read, at.file, at.pos, end.file, end.pos)
}

// Meta writes the positions of a queue.
func (f *Folder) Meta(name string, depth, readFile, readPos, writeFile, writePos int) {
	f.t.Helper()
	text := fmt.Sprintf("%d\n%d,%d\n%d,%d\n", depth, readFile, readPos, writeFile, writePos)
	f.ok(os.WriteFile(filepath.Join(f.Path, name+".diskqueue.meta.dat"), []byte(text), 0o600))
}

// Append writes bytes behind a queue's file.
func (f *Folder) Append(name string, number int, b []byte) {
	f.t.Helper()
	w, err := os.OpenFile(filepath.Join(f.Path, Data(name, number)), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	f.ok(err)
	_, err = w.Write(b)
	f.ok(err)
	f.ok(w.Close())
}

// Data names a file of a queue.
func Data(queue string, number int) string {
	return fmt.Sprintf("%s.diskqueue.%06d.dat", queue, number)
}

// Record is a message as it stands in a file.
func Record(m Message) []byte {
	if m.Timestamp == 0 {
		m.Timestamp = int64(m.N)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(26+len(m.Text())))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Timestamp))
	b = binary.BigEndian.AppendUint16(b, m.Attempts)
	b = fmt.Appendf(b, "%016x", m.N)
	return append(b, m.Text()...)
}

// Run is messages with the numbers from ≤ n < to.
func Run(from, to uint64) []Message {
	var ms []Message
	for n := from; n < to; n++ {
		ms = append(ms, Message{N: n})
	}
	return ms
}

// Files reads the whole folder, to see that nothing changes in it.
func (f *Folder) Files() map[string]string {
	f.t.Helper()
	entries, err := os.ReadDir(f.Path)
	f.ok(err)
	all := make(map[string]string)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(f.Path, e.Name()))
		f.ok(err)
		all[e.Name()] = string(b)
	}
	return all
}
