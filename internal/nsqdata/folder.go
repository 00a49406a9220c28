// Package nsqdata reads the data folder of an nsqd that is not running. It changes
// nothing there, and keeps an nsqd from starting meanwhile.
//
// nsqd keeps, for each topic and for each channel, a queue of its own: files of
// records, and one that says how far they were read and written. A message that
// several channels have yet to get stands in each of their queues.
package nsqdata

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	// ErrInUse says that an nsqd runs on the folder.
	ErrInUse = errors.New("an nsqd runs on this folder")
	// ErrNoData says that the folder is none of an nsqd.
	ErrNoData = errors.New("there is no data of an nsqd")
)

// Note is something about the folder that its owner should know.
type Note struct {
	File string `json:"file,omitempty"` // within the folder
	Text string `json:"text"`
	// Damage: messages may be missing.
	Damage bool `json:"damage"`
}

// Folder is an nsqd's data.
type Folder struct {
	Path   string
	Topics []*Topic // by name
	Notes  []Note   // of the folder as a whole; those of its queues come with Survey

	dir *os.File // holds the lock
}

// Topic is one of nsqd's topics.
type Topic struct {
	Name     string
	Paused   bool
	Queue    *Queue     // messages that no channel has been given
	Channels []*Channel // by name
}

// Channel is one of a topic's channels.
type Channel struct {
	Name   string
	Paused bool
	Queue  *Queue // messages that it has not finished
}

// metadata is nsqd.dat.
type metadata struct {
	Topics []struct {
		Name     string `json:"name"`
		Paused   bool   `json:"paused"`
		Channels []struct {
			Name   string `json:"name"`
			Paused bool   `json:"paused"`
		} `json:"channels"`
	} `json:"topics"`
}

// Open looks what there is; Close lets go of it. ErrInUse while an nsqd runs there,
// ErrNoData for a folder without anything of an nsqd.
func Open(path string) (*Folder, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f := &Folder{Path: path, dir: dir}
	held, err := lock(dir)
	if err == nil && !held {
		err = ErrInUse
	}
	if err == nil {
		err = f.read()
	}
	if err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Close lets an nsqd start on the folder again.
func (f *Folder) Close() error { return f.dir.Close() }

func (f *Folder) read() error {
	m, known, err := f.metadata()
	if err != nil {
		return err
	}
	queues, err := f.queues()
	if err != nil {
		return err
	}
	if !known && len(queues) == 0 {
		return ErrNoData
	}
	if !known {
		f.note("nsqd.dat", false, "is not there: topics and channels are taken from the names of the queues, none is paused")
	}
	for _, t := range m.Topics {
		if !f.durable(t.Name, "topic") {
			continue
		}
		topic := f.topic(t.Name)
		topic.Paused = t.Paused
		for _, c := range t.Channels {
			if f.durable(c.Name, "channel") {
				topic.channel(c.Name).Paused = c.Paused
			}
		}
	}
	f.assign(queues, known)
	return nil
}

// metadata reads nsqd.dat; false when there is none.
func (f *Folder) metadata() (m metadata, known bool, err error) {
	data, err := os.ReadFile(filepath.Join(f.Path, "nsqd.dat"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, false, nil
	case err != nil:
		return m, false, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, false, fmt.Errorf("read nsqd.dat: %w", err)
	}
	return m, true, nil
}

var validName = regexp.MustCompile(`^[.a-zA-Z0-9_-]+$`)

// durable reports whether a name is one that nsqd keeps on disk.
func (f *Folder) durable(name, what string) bool {
	switch {
	case strings.HasSuffix(name, "#ephemeral"):
		f.note("nsqd.dat", false, "the "+what+" "+name+" lives in memory only: passed over")
	case len(name) > 64 || !validName.MatchString(name):
		f.note("nsqd.dat", false, fmt.Sprintf("%q is no name of a %s: passed over", name, what))
	default:
		return true
	}
	return false
}

// assign gives the queues to their topics and channels.
func (f *Folder) assign(queues map[string]*Queue, known bool) {
	for name, q := range queues {
		topic, channel, of := cutQueue(name)
		if !validName.MatchString(topic) || of && !validName.MatchString(channel) {
			f.note(name, false, "is no queue of a topic or channel: passed over")
			continue
		}
		had := f.has(topic, channel, of)
		t := f.topic(topic)
		if of {
			t.channel(channel).Queue = q
		} else {
			t.Queue = q
		}
		if known && !had && q.Bytes() > 0 {
			f.note(name, false, "holds messages, though nsqd.dat does not know its topic or channel: they are included")
		}
	}
	for _, t := range f.Topics {
		if t.Queue == nil {
			t.Queue = &Queue{Name: t.Name, dir: f.Path}
		}
		for _, c := range t.Channels {
			if c.Queue == nil {
				c.Queue = &Queue{Name: t.Name + ":" + c.Name, dir: f.Path}
			}
		}
	}
	slices.SortFunc(f.Notes, func(a, b Note) int { return strings.Compare(a.File, b.File) })
}

// cutQueue splits a queue's name; of: it is a channel's. nsqd writes ; for : on
// Windows.
func cutQueue(name string) (topic, channel string, of bool) {
	if i := strings.IndexAny(name, ":;"); i >= 0 {
		return name[:i], name[i+1:], true
	}
	return name, "", false
}

func (f *Folder) has(topic, channel string, of bool) bool {
	for _, t := range f.Topics {
		if t.Name == topic {
			return !of || slices.ContainsFunc(t.Channels, func(c *Channel) bool { return c.Name == channel })
		}
	}
	return false
}

// topic finds or makes a topic.
func (f *Folder) topic(name string) *Topic {
	i, ok := slices.BinarySearchFunc(f.Topics, name, func(t *Topic, name string) int { return strings.Compare(t.Name, name) })
	if !ok {
		f.Topics = slices.Insert(f.Topics, i, &Topic{Name: name})
	}
	return f.Topics[i]
}

// channel finds or makes a channel.
func (t *Topic) channel(name string) *Channel {
	i, ok := slices.BinarySearchFunc(t.Channels, name, func(c *Channel, name string) int { return strings.Compare(c.Name, name) })
	if !ok {
		t.Channels = slices.Insert(t.Channels, i, &Channel{Name: name})
	}
	return t.Channels[i]
}

func (f *Folder) note(file string, damage bool, text string) {
	f.Notes = append(f.Notes, Note{File: file, Text: text, Damage: damage})
}

var (
	dataName = regexp.MustCompile(`^(.+)\.diskqueue\.(\d{6,18})\.dat(\.bad)?$`)
	metaName = regexp.MustCompile(`^(.+)\.diskqueue\.meta\.dat$`)
)

// queues finds the queues, by name.
func (f *Folder) queues() (map[string]*Queue, error) {
	entries, err := os.ReadDir(f.Path)
	if err != nil {
		return nil, err
	}
	queues := make(map[string]*Queue)
	queue := func(name string) *Queue {
		if queues[name] == nil {
			queues[name] = &Queue{Name: name, dir: f.Path}
		}
		return queues[name]
	}
	for _, e := range entries {
		if m := metaName.FindStringSubmatch(e.Name()); m != nil {
			queue(m[1]).meta = e.Name()
		} else if m := dataName.FindStringSubmatch(e.Name()); m != nil {
			info, err := e.Info()
			if err != nil {
				return nil, err
			}
			if m[3] != "" {
				f.note(e.Name(), true, fmt.Sprintf("was set aside by nsqd as damaged: its %d bytes are not read", info.Size()))
				continue
			}
			number, _ := strconv.ParseInt(m[2], 10, 64) // at most 18 digits
			q := queue(m[1])
			q.files = append(q.files, file{number: number, name: e.Name(), size: info.Size()})
		}
	}
	for _, q := range queues {
		if err := q.place(); err != nil {
			return nil, err
		}
	}
	return queues, nil
}
