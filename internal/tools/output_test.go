package tools

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// folder is what a folder holds: names and contents, unpacked.
func folder(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err == nil {
			files[filepath.ToSlash(name)] = unpacked(t, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func unpacked(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(path, ".gz") {
		return string(b)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return string(text)
}

// testOutput writes into dir/out, by way of dir/work if work is set.
func testOutput(t *testing.T, dir string, work bool, c outputConfig) (*output, *clock) {
	t.Helper()
	c.outputDir, c.gzipLevel = filepath.Join(dir, "out"), 6
	c.workDir = c.outputDir
	if work {
		c.workDir = filepath.Join(dir, "work")
	}
	if c.format == "" {
		c.format = "<TOPIC>.<HOST><REV>.<DATETIME>.log"
	}
	if c.datetime == "" {
		c.datetime = "%H"
	}
	name, err := c.fileFormat("t", "h")
	if err != nil {
		t.Fatal(err)
	}
	o := newOutput(c, name, t.Logf)
	at := &clock{time.Date(2026, 1, 5, 10, 0, 0, 0, time.UTC)}
	o.now = at.now
	return o, at
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func put(t *testing.T, o *output, bodies ...string) {
	t.Helper()
	for _, b := range bodies {
		if o.due() {
			must(t, o.rotate())
		}
		must(t, o.write([]byte(b)))
	}
}

func want(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if d := cmp.Diff(files, folder(t, dir)); d != "" {
		t.Error(d)
	}
}

func TestPlainFileGoesOn(t *testing.T) {
	dir := t.TempDir()
	for i := range 2 {
		o, at := testOutput(t, dir, false, outputConfig{})
		put(t, o, fmt.Sprint("a", i))
		must(t, o.close())
		put(t, o, fmt.Sprint("b", i)) // as after SIGHUP
		at.at = at.at.Add(time.Hour)
		put(t, o, fmt.Sprint("c", i))
		must(t, o.close(), o.close())
	}
	want(t, dir, map[string]string{"out/t.h.10.log": "a0\nb0\na1\nb1\n", "out/t.h.11.log": "c0\nc1\n"})
}

func TestTornLineIsEnded(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "out"), 0o700), os.WriteFile(filepath.Join(dir, "out/t.h.10.log"), []byte("whole\nto"), 0o600))
	o, _ := testOutput(t, dir, false, outputConfig{})
	put(t, o, "next")
	must(t, o.close())
	want(t, dir, map[string]string{"out/t.h.10.log": "whole\nto\nnext\n"})
}

func TestRotateBySize(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		o, _ := testOutput(t, dir, false, outputConfig{rotateSize: 5})
		put(t, o, "aa", "bb", "cc")
		must(t, o.close())
	}
	want(t, dir, map[string]string{"out/t.h-000000.10.log": "aa\nbb\n", "out/t.h-000001.10.log": "cc\naa\n", "out/t.h-000002.10.log": "bb\ncc\n"})
}

func TestRotateByInterval(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		o, at := testOutput(t, dir, false, outputConfig{rotateInterval: time.Minute})
		put(t, o, "a")
		at.at = at.at.Add(time.Minute)
		put(t, o, "b")
		at.at = at.at.Add(1)
		put(t, o, "c")
		must(t, o.close())
	}
	want(t, dir, map[string]string{
		"out/t.h-000000.10.log": "a\nb\n", "out/t.h-000001.10.log": "c\n",
		"out/t.h-000002.10.log": "a\nb\n", "out/t.h-000003.10.log": "c\n",
	})
}

func TestGzipIsReadableAtEverySync(t *testing.T) {
	dir := t.TempDir()
	o, _ := testOutput(t, dir, false, outputConfig{gzip: true})
	text := ""
	for i := range 3 {
		line := strings.Repeat(fmt.Sprint(i), 1000)
		put(t, o, line)
		must(t, o.sync(), o.sync())
		text += line + "\n"
		want(t, dir, map[string]string{"out/t.h-000000.10.log.gz": text})
	}
	must(t, o.close())
	want(t, dir, map[string]string{"out/t.h-000000.10.log.gz": text})
	if info, err := os.Stat(o.file0(dir)); err != nil || info.Size() > 300 {
		t.Errorf("3000 digits take %v, %v", info, err)
	}
	must(t, o.rotate(), o.close())
	want(t, dir, map[string]string{"out/t.h-000000.10.log.gz": text, "out/t.h-000001.10.log.gz": ""})
}

func (o *output) file0(dir string) string {
	return filepath.Join(dir, "out", withRevision(o.current, 0))
}

func TestWorkFolder(t *testing.T) {
	dir := t.TempDir()
	o, at := testOutput(t, dir, true, outputConfig{format: "<TOPIC>/<DATETIME><REV>"})
	put(t, o, "a")
	must(t, o.sync())
	want(t, dir, map[string]string{"work/t/10-000000": "a\n"})
	at.at = at.at.Add(time.Hour)
	put(t, o, "b")
	must(t, o.sync())
	want(t, dir, map[string]string{"out/t/10-000000": "a\n", "work/t/11-000000": "b\n"})
	// somebody else takes the name meanwhile, and the next one
	for _, n := range []string{"11-000000", "11-000001"} {
		must(t, os.WriteFile(filepath.Join(dir, "out/t", n), []byte("theirs"), 0o600))
	}
	must(t, o.close())
	put(t, o, "c")
	must(t, o.close())
	want(t, dir, map[string]string{
		"out/t/10-000000": "a\n", "out/t/11-000000": "theirs", "out/t/11-000001": "theirs", "out/t/11-000002": "b\n", "out/t/11-000003": "c\n",
	})
}

func TestWorkFileOfACrashGoesOn(t *testing.T) {
	dir := t.TempDir()
	o, _ := testOutput(t, dir, true, outputConfig{})
	put(t, o, "a")
	must(t, o.sync(), o.file.Close())
	o, _ = testOutput(t, dir, true, outputConfig{})
	put(t, o, "b")
	must(t, o.close())
	want(t, dir, map[string]string{"out/t.h-000000.10.log": "a\nb\n"})
}

func TestFileFormat(t *testing.T) {
	c := outputConfig{format: "<HOST>/<TOPIC>.<PID><REV>.<DATETIME>"}
	for _, row := range []struct {
		change func(*outputConfig)
		want   string
	}{
		{func(*outputConfig) {}, "h/t.PID.<DATETIME>"},
		{func(c *outputConfig) { c.rotateSize = 1 }, "h/t.PID<REV>.<DATETIME>"},
		{func(c *outputConfig) { c.rotateInterval = 1 }, "h/t.PID<REV>.<DATETIME>"},
		{func(c *outputConfig) { c.workDir = "w" }, "h/t.PID<REV>.<DATETIME>"},
		{func(c *outputConfig) { c.gzip = true }, "h/t.PID<REV>.<DATETIME>.gz"},
		{func(c *outputConfig) { c.gzip, c.format = true, "x<REV>.gz" }, "x<REV>.gz"},
	} {
		c := c
		row.change(&c)
		got, err := c.fileFormat("t", "h")
		if got = strings.ReplaceAll(got, fmt.Sprint(os.Getpid()), "PID"); err != nil || got != row.want {
			t.Errorf("%s, %v, want %s", got, err, row.want)
		}
	}
}

func TestDiskErrorsAreNotHidden(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "out"), nil, 0o600)) // a file where the folder should be
	o, _ := testOutput(t, dir, false, outputConfig{})
	if err := o.rotate(); err == nil {
		t.Error("no error without a folder")
	}
	dir = t.TempDir()
	o, _ = testOutput(t, dir, false, outputConfig{})
	put(t, o, "a")
	o.fsync = func(*os.File) error { return os.ErrInvalid }
	if err := o.sync(); err == nil {
		t.Error("no error although fsync fails")
	}
	o, _ = testOutput(t, dir, false, outputConfig{})
	put(t, o, "a")
	o.file.Close()
	if err := o.sync(); err == nil {
		t.Error("no error although the write fails")
	}
}
