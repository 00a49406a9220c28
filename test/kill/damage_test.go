//go:build linux

package kill

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"

	"github.com/tidings-io/tidings/test/rig"
)

func (n *node) data(parts ...string) string {
	return filepath.Join(append([]string{n.Dir, "data"}, parts...)...)
}

// flip turns one bit of a file.
func flip(t *testing.T, file string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
}

// Exit codes of the command line.
const (
	exitFailure  = 1
	exitConflict = 6
)

// refused wants the node not to start, with an exit code and a text that holds
// all of the words.
func (n *node) refused(t *testing.T, code int, words ...string) {
	t.Helper()
	err := n.Start()
	if err == nil {
		n.Kill()
		t.Fatal("the node starts")
	}
	if !errors.Is(err, rig.ErrExited) || n.Cmd.ProcessState.ExitCode() != code {
		t.Fatalf("want exit code %d, got %v", code, err)
	}
	wantWords(t, n.Log.String(), words...)
}

func wantWords(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("the text does not say %q:\n%s", w, text)
		}
	}
}

// tool runs `tidings log …` on the node's data folder.
func (n *node) tool(t *testing.T, code int, verb string, args ...string) string {
	t.Helper()
	out, got := rig.Command(t, n.Bin, append([]string{"log", verb, "--data-path", n.data()}, args...)...)
	if got != code {
		t.Fatalf("log %s %q exits with %d, want %d:\n%s", verb, args, got, code, out)
	}
	return out
}

func TestDataFolderInUse(t *testing.T) {
	n := newNode(plainBinary(t), dataDir(t))
	n.MustStart(t)
	second := newNode(n.Bin, n.Dir)
	second.refused(t, exitConflict, "another process", n.data(), "--data-path")
	out, code := rig.Command(t, n.Bin, "log", "repair", "--data-path", n.data(), "--yes")
	if code != exitConflict {
		t.Errorf("log repair on a running node's folder exits with %d, want %d", code, exitConflict)
	}
	wantWords(t, out, n.data(), "stop")
	mustPublish(t, n.MustDial(t), "still", []byte("serving"))
}

// written is a node that was killed with messages in its log that no
// checkpoint holds, and the frames of the log.
type written struct {
	*node
	bodies []string
	frames []wal.Frame
}

// write publishes count messages of a size one by one and kills the node. The
// log must not end with the mark of an idle second, so that its last write is
// the last publish: it is tried again when the machine was too slow.
func write(t *testing.T, count, size int) *written {
	t.Helper()
	for range 5 {
		n := newNode(plainBinary(t), dataDir(t), "--wal-segment-size", "1MiB")
		n.MustStart(t)
		n.createChannel(t, "orders", "c")
		w := &written{node: n, bodies: numbered(0, count, size)}
		c := n.MustDial(t)
		for _, b := range w.bodies {
			mustPublish(t, c, "orders", []byte(b))
		}
		n.Kill()
		err := wal.Inspect(vfs.OS{}, n.data("wal"), func(f wal.Frame) error {
			w.frames = append(w.frames, f)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if w.frames[len(w.frames)-1].Kind == wal.KindEntry {
			return w
		}
	}
	t.Fatal("the log never ends with a publish")
	return nil
}

// entryOf finds the frame of the nth message: the last count entries are theirs.
func (w *written) entryOf(nth int) wal.Frame {
	var entries []wal.Frame
	for _, f := range w.frames {
		if f.Kind == wal.KindEntry && f.Size > int64(len(w.bodies[0])) {
			entries = append(entries, f)
		}
	}
	return entries[len(entries)-len(w.bodies)+nth]
}

func (w *written) flip(t *testing.T, f wal.Frame) {
	t.Helper()
	flip(t, w.data("wal", f.Segment), f.Offset+f.Size/2)
}

func TestFlipInLastWrite(t *testing.T) {
	w := write(t, 20, 200)
	last := w.entryOf(19)
	w.flip(t, last)
	w.MustStart(t)
	wantWords(t, w.Log.String(), `"WARN"`, "cut the torn last write", last.Segment)
	if w.MustMetric(t, "tidings_log_cut_bytes") == 0 {
		t.Error("tidings_log_cut_bytes is 0")
	}
	mustPublish(t, w.MustDial(t), "orders", []byte("new"))
	expectBodies(t, w.drain(t, "orders", "c"), append(w.bodies[:19:19], "new"))
}

func TestFlipBelowDurableMark(t *testing.T) {
	w := write(t, 20, 200)
	w.flip(t, w.entryOf(5))
	w.repaired(t, 5)
}

func TestFlipInEarlierSegment(t *testing.T) {
	w := write(t, 60, 60<<10)
	f := w.entryOf(3)
	if last := w.frames[len(w.frames)-1].Segment; f.Segment >= last {
		t.Fatalf("message 3 stands in the last segment %s", last)
	}
	w.flip(t, f)
	w.repaired(t, 3)
}

// repaired wants the node to refuse its damaged log until it is repaired, and
// then to have the messages before the damage, and to go on.
func (w *written) repaired(t *testing.T, whole int) {
	t.Helper()
	w.refused(t, exitFailure, "tidings log repair", w.data(), "damaged")
	wantWords(t, w.tool(t, exitFailure, "verify"), "DAMAGED", "log repair")
	before := w.fingerprint(t)
	wantWords(t, w.tool(t, exitFailure, "repair"), "lost", "--yes")
	if after := w.fingerprint(t); after != before {
		t.Errorf("log repair without --yes has changed the folder:\n%s\nbecame\n%s", before, after)
	}
	w.refused(t, exitFailure, "tidings log repair")
	wantWords(t, w.tool(t, 0, "repair", "--yes"), "moved aside")
	w.tool(t, 0, "verify")
	w.MustStart(t)
	mustPublish(t, w.MustDial(t), "orders", []byte("new"))
	expectBodies(t, w.drain(t, "orders", "c"), append(w.bodies[:whole:whole], "new"))
	w.Kill()
	w.MustStart(t)
}

// fingerprint lists files with sizes and times, the lock's left out.
func (w *written) fingerprint(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(w.data(), func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && info.Name() != "LOCK" {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// stored is a stopped node whose messages stand in segment files that two
// checkpoints name.
type stored struct {
	*node
	bodies  []string
	batches []seglog.Entry
}

// store publishes batches of ten messages each and waits until both kept
// checkpoints of their shard hold them all.
func store(t *testing.T, batches int) *stored {
	t.Helper()
	n := newNode(plainBinary(t), dataDir(t),
		"--wal-segment-size", "1MiB", "--tail-size", "64KiB", "--checkpoint-age", "100ms")
	n.MustStart(t)
	n.createChannel(t, "orders", "c")
	s := &stored{node: n, bodies: numbered(0, 10*batches, 4<<10)}
	c := n.MustDial(t)
	for i := 0; i < len(s.bodies); i += 10 {
		var ten [][]byte
		for _, b := range s.bodies[i : i+10] {
			ten = append(ten, []byte(b))
		}
		if err := c.PublishMany("orders", ten...); err != nil {
			t.Fatal(err)
		}
	}
	id := s.shardOf(t)
	var older uint64 // the checkpoint after the last message must become the older one
	rig.Eventually(t, "checkpoints do not come", func() (bool, error) {
		kept := s.checkpoints(t, id)
		if len(kept) == 0 {
			return false, nil
		}
		if older == 0 && kept[len(kept)-1].Index > 0 && s.flushed(t) {
			older = kept[len(kept)-1].Index + 1
		}
		mustPublish(t, c, "other", []byte("a change in other shards"))
		n.MustPost(t, "/pub?topic=orders", []byte("tail"))
		s.bodies = append(s.bodies, "tail")
		return older != 0 && len(kept) == 2 && kept[0].Index >= older, nil
	})
	n.Kill()
	if err := seglog.Inspect(vfs.OS{}, n.data("topics"), func(e seglog.Entry) error {
		if e.Batch.Count == 10 {
			s.batches = append(s.batches, e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(s.batches) < batches {
		t.Fatalf("%d batches stand in segment files, want %d", len(s.batches), batches)
	}
	return s
}

// flushed says whether all of the batches have left memory.
func (s *stored) flushed(t *testing.T) bool {
	t.Helper()
	return s.MustMetric(t, "tidings_tail_bytes") < 64<<10
}

// shardOf finds the shard that holds the messages: the one whose log grew.
func (s *stored) shardOf(t *testing.T) uint32 {
	t.Helper()
	bytes := map[uint32]int64{}
	if err := wal.Inspect(vfs.OS{}, s.data("wal"), func(f wal.Frame) error {
		bytes[f.Shard] += f.Size
		return nil
	}); err != nil && len(bytes) == 0 { // the node is writing: the end may be torn
		t.Fatal(err)
	}
	var most uint32
	for id, n := range bytes {
		if n > bytes[most] {
			most = id
		}
	}
	return most
}

// checkpoints lists a shard's checkpoints, oldest first.
func (s *stored) checkpoints(t *testing.T, id uint32) []shard.Report {
	t.Helper()
	all, err := shard.Verify(vfs.OS{}, s.data("shards"))
	if err != nil {
		return nil // removed while it was read
	}
	all = slices.DeleteFunc(all, func(r shard.Report) bool { return r.Shard != id })
	slices.SortFunc(all, func(a, b shard.Report) int { return int(a.Index) - int(b.Index) })
	return all
}

func TestFlipInBatchHeader(t *testing.T) { testFlipInBatch(t, 24+8) } // the batch's length
func TestFlipInBatchBody(t *testing.T)   { testFlipInBatch(t, 24+61+3000) }

// testFlipInBatch damages the third batch at a place behind the start of its
// prefix, and wants the rest to be served.
func testFlipInBatch(t *testing.T, offset int64) {
	s := store(t, 20)
	hit := s.batches[2]
	flip(t, hit.File, hit.Pos+offset)
	wantWords(t, s.tool(t, exitFailure, "verify"), "DAMAGED", filepath.Base(hit.File))
	s.MustStart(t)
	got := s.drain(t, "orders", "c")
	expectBodies(t, got, slices.Concat(s.bodies[:20], s.bodies[30:]))
	if s.MustMetric(t, "tidings_segment_damage_total") == 0 {
		t.Error("tidings_segment_damage_total is 0")
	}
	wantWords(t, s.Log.String(), `"WARN"`)
	mustPublish(t, s.MustDial(t), "orders", []byte("new"))
	expectBodies(t, s.drain(t, "orders", "c"), []string{"new"})
	status, text, err := s.Get("/ping")
	if err != nil || !strings.Contains(text, "damage") {
		t.Errorf("/ping does not tell of the damage: %d %q %v", status, text, err)
	}
}

func TestFlipInManifest(t *testing.T) {
	s := store(t, 5)
	kept := s.checkpoints(t, s.shardOf(t))
	if len(kept) != 2 {
		t.Fatalf("%d checkpoints, want 2", len(kept))
	}
	flip(t, kept[1].File, 100)
	wantWords(t, s.tool(t, exitFailure, "verify"), "checkpoint", "DAMAGED")
	s.MustStart(t)
	wantWords(t, s.Log.String(), `"WARN"`, "checkpoint is damaged", filepath.Base(kept[1].File))
	expectBodies(t, s.drain(t, "orders", "c"), s.bodies)
}

func TestFlipInBothManifests(t *testing.T) {
	s := store(t, 5)
	for _, r := range s.checkpoints(t, s.shardOf(t)) {
		flip(t, r.File, 100)
	}
	s.refused(t, exitFailure, "checkpoint", "damaged")
}
