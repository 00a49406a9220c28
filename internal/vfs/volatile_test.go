//go:build faults

package vfs_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidings-io/tidings/internal/vfs"
)

func init() {
	makers["Volatile"] = func(t *testing.T) (vfs.FS, string) {
		return vfs.NewVolatile(vfs.OS{}), t.TempDir()
	}
	makers["VolatileSeeded"] = func(t *testing.T) (vfs.FS, string) {
		return vfs.NewVolatile(vfs.OS{}).Seed(1), t.TempDir()
	}
	makers["VolatileOverMem"] = func(t *testing.T) (vfs.FS, string) {
		return memRoot(t, vfs.NewVolatile(vfs.NewMem()))
	}
}

// volatileDisk loses power by forgetting the Volatile, as a kill does.
type volatileDisk struct {
	*vfs.Volatile
	below  *vfs.Mem
	seeded bool
}

func newVolatileDisk(seed uint64, seeded bool) *volatileDisk {
	d := &volatileDisk{below: vfs.NewMem(), seeded: seeded}
	d.lose(seed, !seeded)
	return d
}

func (d *volatileDisk) lose(seed uint64, _ bool) {
	d.Volatile = vfs.NewVolatile(d.below)
	if d.seeded {
		d.Seed(seed)
	}
}

func TestVolatileModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, seeded := rapid.Uint64().Draw(t, "seed"), rapid.Bool().Draw(t, "seeded")
		m := newModel(newVolatileDisk(seed, seeded))
		m.inexact = seeded
		m.run(t)
	})
}

func TestVolatileLeavesNoMixture(t *testing.T) {
	testNoMixture(t, func(seed uint64) disk { return newVolatileDisk(seed, true) })
}

func TestVolatileRemovedFolderKeepsWhatLeftIt(t *testing.T) {
	testRemovedFolder(t, func(seed uint64) disk { return newVolatileDisk(seed, seed > 0) })
}

// scenarios are what a child process does before it is killed.
var scenarios = map[string]func(t *testing.T, fsys vfs.FS, root string){
	"file": func(t *testing.T, fsys vfs.FS, root string) {
		f := must1(fsys.Create(path.Join(root, "f")))(t)
		write(t, f, "synced", 0)
		must(t, f.Sync())
		must(t, fsys.SyncDir(root))
		write(t, f, "lost", 6)
		write(t, f, "LOST", 0)
		put(t, fsys, path.Join(root, "nameless"), "synced, but its name is not")
		unsynced := must1(fsys.Create(path.Join(root, "empty")))(t)
		must(t, fsys.SyncDir(root))
		write(t, unsynced, "the name is synced, the bytes are not", 0)
		put(t, fsys, path.Join(root, "late"), "synced, but its name is not")
		cut := must1(fsys.OpenReadWrite(path.Join(root, "cut")))(t)
		must(t, cut.Truncate(1))
		must(t, fsys.Remove(path.Join(root, "removed")))
		must(t, fsys.MkdirAll(path.Join(root, "folder")))
		put(t, fsys, path.Join(root, "folder", "f"), "in a folder without a name")
		must(t, fsys.SyncDir(path.Join(root, "folder")))
	},
	"rename": func(t *testing.T, fsys vfs.FS, root string) {
		for _, name := range []string{"lost", "kept", "torn"} {
			must(t, vfs.WriteFileAtomic(fsys, path.Join(root, name), []byte("old "+name)))
		}
		must(t, vfs.WriteFileAtomic(fsys, path.Join(root, "kept"), []byte("new kept")))
		f := must1(fsys.Create(path.Join(root, "torn.tmp")))(t)
		write(t, f, "new torn", 0)
		must(t, fsys.Rename(path.Join(root, "torn.tmp"), path.Join(root, "torn")))
		must(t, fsys.SyncDir(root))
		put(t, fsys, path.Join(root, "lost.tmp"), "new lost")
		must(t, fsys.Rename(path.Join(root, "lost.tmp"), path.Join(root, "lost")))
	},
	"half": func(t *testing.T, fsys vfs.FS, root string) {
		put(t, fsys, path.Join(root, "f"), strings.Repeat("a", halfSize))
		must(t, fsys.SyncDir(root))
		f := must1(fsys.OpenReadWrite(path.Join(root, "f")))(t)
		write(t, f, strings.Repeat("b", halfSize/2), 0)
		must(t, f.SyncData())
		write(t, f, strings.Repeat("c", halfSize/2), halfSize/2)
	},
}

const (
	halfSize    = 128 << 10
	scenarioEnv = "TIDINGS_TEST_SCENARIO"
	rootEnv     = "TIDINGS_TEST_ROOT"
)

// TestVolatileChild is the process that is killed; by itself it does nothing.
func TestVolatileChild(t *testing.T) {
	scenario := scenarios[os.Getenv(scenarioEnv)]
	if scenario == nil {
		return
	}
	scenario(t, vfs.Default(), os.Getenv(rootEnv))
	fmt.Println("\nready")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the kill
}

// kill runs a scenario in a process of its own and kills it with SIGKILL.
func kill(t *testing.T, scenario, choice, root string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestVolatileChild$")
	cmd.Env = append(os.Environ(), scenarioEnv+"="+scenario, rootEnv+"="+root, vfs.VolatileEnv+"="+choice)
	stdin := must1(cmd.StdinPipe())(t)
	defer stdin.Close()
	stdout := must1(cmd.StdoutPipe())(t)
	must(t, cmd.Start())
	var said bytes.Buffer
	lines := bufio.NewScanner(stdout)
	ready := false
	for !ready && lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		ready = lines.Text() == "ready"
	}
	must(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil || !ready {
		t.Fatalf("the child ended by itself:\n%s", said.String())
	}
}

// files returns what stands in a folder, read without any Volatile; hidden says
// whether something stands there under a hidden name.
func files(t *testing.T, root string) (got map[string]string, hidden bool) {
	t.Helper()
	got = map[string]string{}
	for _, name := range must1(vfs.OS{}.ReadDir(root))(t) {
		if strings.HasPrefix(name, ".volatile-") {
			hidden = true
			continue
		}
		if must1(vfs.OS{}.Stat(path.Join(root, name)))(t).IsDir {
			got[name] = "folder"
			continue
		}
		got[name] = string(must1(vfs.ReadFile(vfs.OS{}, path.Join(root, name)))(t))
	}
	return got, hidden
}

func TestVolatileLosesFiles(t *testing.T) {
	prepare := func() string {
		root := t.TempDir()
		put(t, vfs.OS{}, path.Join(root, "cut"), "whole")
		put(t, vfs.OS{}, path.Join(root, "removed"), "still there")
		return root
	}
	root := prepare()
	kill(t, "file", "volatile", root)
	got, hidden := files(t, root)
	want := map[string]string{
		"f": "synced", "nameless": "synced, but its name is not", "empty": "", "cut": "whole", "removed": "still there",
	}
	if !maps.Equal(got, want) {
		t.Errorf("the kill left %q, want %q", got, want)
	}
	if !hidden {
		t.Error("the synced bytes without a name stand nowhere")
	}
	wantNames(t, vfs.NewVolatile(vfs.OS{}), root, "cut", "empty", "f", "nameless", "removed")
	if _, hidden := files(t, root); hidden {
		t.Error("the next process has not removed what the killed one left")
	}

	// The same on the plain file system loses nothing: the test can tell.
	root = prepare()
	kill(t, "file", "os", root)
	if got, _ := files(t, root); got["f"] != "LOSTedlost" || got["folder"] != "folder" || got["removed"] != "" {
		t.Errorf("a kill on OS left %q", got)
	}
}

func TestVolatileLosesRenames(t *testing.T) {
	root := t.TempDir()
	kill(t, "rename", "volatile", root)
	got, _ := files(t, root)
	want := map[string]string{"lost": "old lost", "kept": "new kept", "torn": ""}
	if !maps.Equal(got, want) {
		t.Errorf("the kill left %q, want %q", got, want)
	}
}

func TestVolatileTearsFiles(t *testing.T) {
	for _, choice := range []string{"volatile", "volatile:1", "volatile:2"} {
		root := t.TempDir()
		kill(t, "half", choice, root)
		got, _ := files(t, root)
		f := got["f"]
		if len(f) != halfSize || strings.Count(f[:halfSize/2], "b") != halfSize/2 {
			t.Fatalf("%s: synced bytes were lost", choice)
		}
		early := 0
		for i := halfSize / 2; i < halfSize; i += 512 {
			switch f[i : i+512] {
			case strings.Repeat("a", 512):
			case strings.Repeat("c", 512):
				early++
			default:
				t.Fatalf("%s: the piece at %d is neither old nor new", choice, i)
			}
		}
		if seeded := choice != "volatile"; seeded != (early > 0) || early == halfSize/1024 {
			t.Errorf("%s: %d of %d pieces went through early", choice, early, halfSize/1024)
		}
	}
}

func TestDefaultRefusesWhatItCannotUnderstand(t *testing.T) {
	for _, choice := range []string{"volatil", "volatile:x", "volatile:"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestVolatileChild$")
		cmd.Env = append(os.Environ(), scenarioEnv+"=file", rootEnv+"="+t.TempDir(), vfs.VolatileEnv+"="+choice)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "want os, volatile, volatile:<seed> or slow:<file>") {
			t.Errorf("%q was taken: %v\n%s", choice, err, out)
		}
	}
}
