package nsqdata_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/nsqdata"
	"github.com/tidings-io/tidings/internal/nsqdata/nsqdatatest"
)

func open(t *testing.T, path string) *nsqdata.Folder {
	t.Helper()
	f, err := nsqdata.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func survey(t *testing.T, topic *nsqdata.Topic) *nsqdata.Survey {
	t.Helper()
	s, err := topic.Survey(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var anyLimits = nsqdata.Limits{Messages: 1000, Bytes: 1 << 20}

// got is what each channel gets of a topic, in order, with attempts where there are
// any; the topic's own messages are under "".
func got(t *testing.T, s *nsqdata.Survey, from int64, lim nsqdata.Limits) (map[string][]string, int64) {
	t.Helper()
	out := map[string][]string{}
	next := from
	for b, err := range s.HandedBatches(context.Background(), from, lim) {
		if err != nil {
			t.Fatal(err)
		}
		if b.From != next {
			t.Fatalf("a batch begins at %d, want %d", b.From, next)
		}
		next += int64(len(b.Bodies))
		for _, c := range b.Channels {
			for i, body := range b.Bodies {
				place := int64(i)
				if slices.ContainsFunc(c.Finished, func(r nsqdata.Range) bool { return r.From <= place && place < r.To }) {
					continue
				}
				text := string(body)
				for _, a := range c.Attempts {
					if a.Place == place {
						text += fmt.Sprint(" x", a.N)
					}
				}
				out[c.Channel] = append(out[c.Channel], text)
			}
		}
	}
	if next != s.Handed {
		t.Fatalf("%d messages of channels came, want %d", next, s.Handed)
	}
	total := next
	for b, err := range s.TopicalBatches(context.Background(), 0, lim) {
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range b.Bodies {
			out[""] = append(out[""], string(body))
		}
		total += int64(len(b.Bodies))
	}
	return out, total
}

func texts(ms []nsqdatatest.Message) []string {
	var out []string
	for _, m := range ms {
		out = append(out, m.Text())
		if m.Attempts > 0 {
			out[len(out)-1] += fmt.Sprint(" x", m.Attempts)
		}
	}
	return out
}

func TestQueues(t *testing.T) {
	f := nsqdatatest.New(t)
	f.Topic("orders", true, "a", "!b", "c", "late")
	f.Topic("empty", false)
	a, b := nsqdatatest.Run(1, 50), nsqdatatest.Run(30, 50)
	a[40].Attempts, b[3].Attempts = 2, 7
	f.Queue("orders:a", 500, 7, a...)
	f.Queue("orders:b", 1<<20, 0, b...)
	f.Queue("orders:c", 100, 20, nsqdatatest.Run(1, 21)...)
	f.Queue("orders", 300, 3, nsqdatatest.Run(47, 60)...)
	before := f.Files()
	folder := open(t, f.Path)
	if len(folder.Topics) != 2 || len(folder.Notes) != 0 {
		t.Fatalf("topics %v, notes %v", folder.Topics, folder.Notes)
	}
	orders := folder.Topics[1]
	if !orders.Paused || orders.Channels[0].Paused || !orders.Channels[1].Paused {
		t.Error("pauses are not as they were")
	}
	s := survey(t, orders)
	if s.Handed != 42 || s.Topical != 10 || len(s.Notes) > 0 {
		t.Errorf("%d messages of channels, %d of the topic; %v", s.Handed, s.Topical, s.Notes)
	}
	want := map[string][]string{"a": texts(a[7:]), "b": texts(b), "": texts(nsqdatatest.Run(50, 60))}
	for _, lim := range []nsqdata.Limits{anyLimits, {Messages: 7, Bytes: 1 << 20}, {Messages: 100, Bytes: 30}, {Messages: 1}} {
		out, _ := got(t, s, 0, lim)
		if d := cmp.Diff(want, out); d != "" {
			t.Errorf("limits %+v (-want +got):\n%s", lim, d)
		}
	}
	for from := range s.Handed {
		out, _ := got(t, s, from, anyLimits)
		if d := cmp.Diff(texts(a[7:])[from:], out["a"], cmp.Transformer("none", func(s []string) []string { return append([]string{}, s...) })); d != "" {
			t.Errorf("from %d on (-want +got):\n%s", from, d)
		}
	}
	if !maps.Equal(before, f.Files()) {
		t.Error("the folder has changed")
	}
}

// TestOrder: what stands in several queues comes once, and each queue keeps its
// order, also where messages that nsqd had in memory stand behind later ones.
func TestOrder(t *testing.T) {
	f := nsqdatatest.New(t)
	f.Topic("t", false, "a", "b")
	a := append(nsqdatatest.Run(100, 200), nsqdatatest.Run(1, 50)...)
	b := append(nsqdatatest.Run(150, 180), append(nsqdatatest.Run(40, 45), nsqdatatest.Run(300, 310)...)...)
	f.Queue("t:a", 700, 0, a...)
	f.Queue("t:b", 1<<20, 0, b...)
	s := survey(t, open(t, f.Path).Topics[0])
	out, n := got(t, s, 0, anyLimits)
	if n != 159 {
		t.Errorf("%d messages, want 159", n)
	}
	if d := cmp.Diff(texts(a), out["a"]); d != "" {
		t.Errorf("a (-want +got):\n%s", d)
	}
	if d := cmp.Diff(texts(b), out["b"]); d != "" {
		t.Errorf("b (-want +got):\n%s", d)
	}
}

// TestSameMessage: one id may be that of several messages, and one message may stand
// in a queue twice.
func TestSameMessage(t *testing.T) {
	f := nsqdatatest.New(t)
	f.Topic("t", false, "a", "b", "c")
	one := nsqdatatest.Message{N: 1, Body: "one", Attempts: 1}
	again := nsqdatatest.Message{N: 1, Body: "one", Attempts: 3}
	other := nsqdatatest.Message{N: 1, Body: "other"}
	later := nsqdatatest.Message{N: 1, Body: "one", Timestamp: 99}
	stale := nsqdatatest.Message{N: 7, Body: "given to a, and not yet to all"}
	f.Queue("t:a", 1<<20, 0, one, other, again, stale)
	f.Queue("t:b", 1<<20, 0, later)
	f.Queue("t", 1<<20, 0, stale, stale, nsqdatatest.Message{N: 8})
	s := survey(t, open(t, f.Path).Topics[0])
	out, n := got(t, s, 0, anyLimits)
	want := map[string][]string{
		"a": {"one x3", "other", stale.Body}, "b": {stale.Body, "one"}, "c": {stale.Body}, "": {"message 8"},
	}
	if d := cmp.Diff(want, out); d != "" || n != 5 {
		t.Errorf("%d messages (-want +got):\n%s", n, d)
	}
}

func TestSession(t *testing.T) {
	f := nsqdatatest.New(t)
	f.Topic("t", false, "a")
	f.Queue("t:a", 100, 0, nsqdatatest.Run(1, 9)...)
	session := func() [16]byte { return survey(t, open(t, f.Path).Topics[0]).Session }
	first := session()
	f.Queue("t:a", 1<<20, 0, nsqdatatest.Run(1, 9)...) // elsewhere, the same
	for i := 1; i < 9; i++ {
		_ = os.Remove(filepath.Join(f.Path, nsqdatatest.Data("t:a", i)))
	}
	if session() != first {
		t.Error("the same messages have another session")
	}
	f.Queue("t:a", 1<<20, 1, nsqdatatest.Run(1, 9)...)
	if session() == first {
		t.Error("other messages have the same session")
	}
}

func TestDamage(t *testing.T) {
	whole := nsqdatatest.Run(1, 5)
	record := nsqdatatest.Record(nsqdatatest.Message{N: 9})
	for name, x := range map[string]struct {
		harm func(f *nsqdatatest.Folder)
		want []nsqdatatest.Message
		note string // of damage; a file that is read otherwise gets none
	}{
		"torn length":         {func(f *nsqdatatest.Folder) { f.Append("t", 0, record[:3]) }, whole, "its 3 bytes"},
		"torn record":         {func(f *nsqdatatest.Folder) { f.Append("t", 0, record[:20]) }, whole, "its 20 bytes"},
		"zeros behind":        {func(f *nsqdatatest.Folder) { f.Append("t", 0, make([]byte, 100)) }, whole, "the 100 bytes"},
		"negative length":     {func(f *nsqdatatest.Folder) { f.Append("t", 0, binary.BigEndian.AppendUint32(nil, 1<<31+5)) }, whole, "there is no record"},
		"a whole one behind":  {func(f *nsqdatatest.Folder) { f.Append("t", 0, record) }, append(slices.Clone(whole), nsqdatatest.Message{N: 9}), ""},
		"a file behind":       {func(f *nsqdatatest.Folder) { f.Append("t", 1, record) }, append(slices.Clone(whole), nsqdatatest.Message{N: 9}), ""},
		"a gap before a file": {func(f *nsqdatatest.Folder) { f.Append("t", 3, record) }, append(slices.Clone(whole), nsqdatatest.Message{N: 9}), "2 files before it are missing"},
		"torn, then a file": {func(f *nsqdatatest.Folder) {
			f.Append("t", 0, record[:20])
			f.Append("t", 1, record)
		}, append(slices.Clone(whole), nsqdatatest.Message{N: 9}), "its 20 bytes"},
		"set aside":      {func(f *nsqdatatest.Folder) { f.Append("t.diskqueue.000009.dat.bad", 0, record) }, whole, ""},
		"positions lost": {func(f *nsqdatatest.Folder) { os.Remove(filepath.Join(f.Path, "t.diskqueue.meta.dat")) }, whole, ""},
		"positions damaged": {func(f *nsqdatatest.Folder) {
			os.WriteFile(filepath.Join(f.Path, "t.diskqueue.meta.dat"), []byte("x"), 0o600)
		}, whole, "may hold what was read before"},
		"read beyond": {func(f *nsqdatatest.Folder) { f.Meta("t", 0, 0, 1<<20, 0, 1<<20) }, nil, "ends at"},
		"half read":   {func(f *nsqdatatest.Folder) { f.Queue("t", 1<<20, 2, whole...) }, whole[2:], ""},
		"the first is gone": {func(f *nsqdatatest.Folder) {
			f.Meta("t", 0, 0, 5, 0, 5)
			f.Append("t", 1, record)
			os.Remove(filepath.Join(f.Path, nsqdatatest.Data("t", 0)))
		}, []nsqdatatest.Message{{N: 9}}, ""},
		"an older file left": {func(f *nsqdatatest.Folder) { f.Append("t", 1, record); f.Meta("t", 1, 1, 0, 1, len(record)) }, []nsqdatatest.Message{{N: 9}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := nsqdatatest.New(t)
			f.Topic("t", false)
			f.Queue("t", 1<<20, 0, whole...)
			x.harm(f)
			folder := open(t, f.Path)
			s := survey(t, folder.Topics[0])
			out, _ := got(t, s, 0, anyLimits)
			if d := cmp.Diff(texts(x.want), out[""]); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			var damage []string
			for _, n := range s.Notes {
				if n.Damage {
					damage = append(damage, n.Text)
				}
			}
			if text := strings.Join(damage, "; "); (text == "") != (x.note == "") || !strings.Contains(text, x.note) {
				t.Errorf("damage is %q, want %q", text, x.note)
			}
		})
	}
}

func TestFolderNotes(t *testing.T) {
	f := nsqdatatest.New(t)
	f.Topic("t", false, "a", "tmp#ephemeral", "not/a/name")
	f.Topic("mist#ephemeral", false)
	f.Queue("t:a", 1<<20, 0, nsqdatatest.Run(1, 3)...)
	f.Queue("t:orphan", 1<<20, 0, nsqdatatest.Run(1, 3)...)
	f.Queue("lost", 1<<20, 0, nsqdatatest.Run(1, 3)...)
	if err := os.Rename(filepath.Join(f.Path, nsqdatatest.Data("lost", 0)), filepath.Join(f.Path, nsqdatatest.Data("lost", 0)+".bad")); err != nil {
		t.Fatal(err)
	}
	folder := open(t, f.Path)
	var text strings.Builder
	for _, n := range folder.Notes {
		fmt.Fprintln(&text, n.Damage, n.File, n.Text)
	}
	for _, want := range []string{
		"true lost.diskqueue.000000.dat.bad was set aside", "the channel tmp#ephemeral", "the topic mist#ephemeral",
		`"not/a/name" is no name of a channel`, "false t:orphan holds messages",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no note says %q:\n%s", want, text.String())
		}
	}
	var names []string
	for _, topic := range folder.Topics {
		for _, c := range topic.Channels {
			names = append(names, topic.Name+":"+c.Name)
		}
	}
	if want := []string{"t:a", "t:orphan"}; !slices.Equal(names, want) {
		t.Errorf("channels %q, want %q", names, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := nsqdata.Open(t.TempDir()); !errors.Is(err, nsqdata.ErrNoData) {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := nsqdata.Open(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	f := nsqdatatest.New(t)
	if err := os.WriteFile(filepath.Join(f.Path, "nsqd.dat"), []byte(`{"topics":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := nsqdata.Open(f.Path); err == nil || !strings.Contains(err.Error(), "nsqd.dat") {
		t.Errorf("a damaged nsqd.dat: %v", err)
	}
}
