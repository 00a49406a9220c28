package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultsAreValid(t *testing.T) {
	for name, c := range map[string]Config{"serve": Default(), "nsqd": DefaultNSQD()} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	c := Default()
	seen := map[string]bool{}
	for _, f := range c.Fields() {
		if f.Name == "" || f.Help == "" || seen[f.Name] {
			t.Errorf("field %+v: needs a name of its own and a help text", f)
		}
		seen[f.Name] = true
	}
}

func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t.toml")
	if err := os.WriteFile(file, []byte("max_msg_size = \"2MiB\"\nmsg_timeout = \"10s\"\nmem_queue_size = 7\nrequeue_on_disconnect = false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, warn, err := Load(Source{
		File:    file,
		Environ: []string{"TIDINGS_MSG_TIMEOUT=20s", "TIDINGS_MAX_BODY_SIZE=9MiB", "HOME=/x"},
		Flags:   map[string]string{"max-body-size": "8MiB"},
	})
	if err != nil || len(warn) != 0 {
		t.Fatal(err, warn)
	}
	got := []any{c.MaxMsgSize, c.MsgTimeout, c.MaxBodySize, c.MemQueueSize, c.RequeueOnDisconnect}
	want := []any{Bytes(2 << 20), 20 * time.Second, Bytes(8 << 20), 7, false}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestUnknownKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t.toml")
	if err := os.WriteFile(file, []byte("max_msg_sise = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Load(Source{File: file})
	if err == nil || !strings.Contains(err.Error(), "did you mean max_msg_size?") {
		t.Fatalf("got %v", err)
	}
	_, warn, err := Load(Source{File: file, NSQD: true})
	if err != nil || len(warn) != 1 {
		t.Fatalf("as nsqd: %v %v", warn, err)
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "1048576": 1 << 20, "64KiB": 64 << 10, "1.5GiB": 3 << 29, "2MB": 2e6, "7B": 7} {
		got, err := ParseBytes(text)
		if err != nil || got != want {
			t.Errorf("%s: %d %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "x", "1XiB", "99999999TiB", "NaN"} {
		if n, err := ParseBytes(text); err == nil {
			t.Errorf("%q: accepted as %d", text, n)
		}
	}
	for _, b := range []Bytes{0, 1, 1023, 1 << 10, 64 << 20, 3 << 29, 5 << 40} {
		if got, err := ParseBytes(b.String()); err != nil || got != b {
			t.Errorf("%d: %s reads back as %d %v", int64(b), b, got, err)
		}
	}
}

func TestBadValuesNameTheFlag(t *testing.T) {
	for flag, value := range map[string]string{
		"tcp-address": "nonsense", "max-msg-size": "wide", "msg-timeout": "1 parsec",
		"max-rdy-count": "0", "log-format": "xml", "data-shards": "1000",
	} {
		_, _, err := Load(Source{Flags: map[string]string{flag: value}})
		if err == nil || !strings.Contains(err.Error(), "--"+flag) {
			t.Errorf("%s=%s: %v", flag, value, err)
		}
	}
}
