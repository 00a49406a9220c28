package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultsAreValid(t *testing.T) {
	for _, nsqd := range []bool{false, true} {
		if _, _, err := Load(Source{NSQD: nsqd}); err != nil {
			t.Errorf("nsqd %v: %v", nsqd, err)
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

func TestMemoryLimit(t *testing.T) {
	for text, want := range map[string]Bytes{"auto": 0, "off": 0, "512MiB": 512 << 20, "16777216": 16 << 20} {
		c, _, err := Load(Source{Flags: map[string]string{"memory-limit": text}})
		if err != nil {
			t.Fatal(err)
		}
		got, auto, err := c.MemoryLimitBytes()
		if err != nil || got != want || auto != (text == "auto") {
			t.Errorf("%s: %d %v %v, want %d", text, got, auto, err, want)
		}
	}
	for _, text := range []string{"", "none", "1MiB", "512", "-1"} {
		_, _, err := Load(Source{Flags: map[string]string{"memory-limit": text}})
		if err == nil || !strings.Contains(err.Error(), "want auto, off, or a size of at least 16MiB") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestBadValuesNameTheFlag(t *testing.T) {
	for flag, value := range map[string]string{
		"tcp-address": "nonsense", "http-address": "localhost:http", "admin-address": ":65536",
		"max-msg-size": "wide", "msg-timeout": "1 parsec", "log-level": "loud",
		"max-rdy-count": "0", "log-format": "xml", "data-shards": "1000", "data-path": "",
		"max-body-size": "2GiB", "drain-timeout": "-1s", "requeue-on-disconnect": "maybe",
		"memory-limit": "512",
	} {
		_, _, err := Load(Source{Flags: map[string]string{flag: value}})
		if err == nil || !strings.Contains(err.Error(), "--"+flag) {
			t.Errorf("%s=%s: %v", flag, value, err)
		}
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "t.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Every mistake in a file is answered with its place and with what is wanted.
func TestFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"max_msg_size = true":                  `: max_msg_size = true: want a size such as "64MiB", or a number of bytes`,
		"max_msg_size = [1]":                   `: max_msg_size = [1]: want a size`,
		"max_msg_size = 1.5":                   `: max_msg_size = 1.5: want a size`,
		"max_msg_size = \"wide\"":              `: max_msg_size "wide": want a size such as 64MiB`,
		"data_path = 7":                        `: data_path = 7: want text in quotes`,
		"requeue_on_disconnect = 1":            `: requeue_on_disconnect = 1: want true or false`,
		"max_rdy_count = \"many\"":             `: max_rdy_count "many": want a whole number`,
		"max_rdy_count = 0":                    `: max_rdy_count "0": want at least 1`,
		"msg_timeout = 1979-05-27":             `: msg_timeout = 1979-05-27: want a duration`,
		"[node]\nname = 1":                     `: node = map[name:1]: want text in quotes`,
		"max_msg_size = 1\nnonsense":           `:2:1: not TOML: `,
		"max_msg_size = 1\n\nmax_msg_size = 2": `: not TOML: key max_msg_size is already defined`,
		"nsqlookupd_tcp_addresses = [1]":       `: nsqlookupd_tcp_addresses = [1]: want texts in brackets`,
		"zzzzzzzzzz = 1":                       "zzzzzzzzzz; `tidings config init` lists the keys",
	} {
		file := write(t, text)
		_, _, err := Load(Source{File: file})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), file) {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
	if _, _, err := Load(Source{File: "absent.toml"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

// A list is an array in the file, commas elsewhere, and has nsqd's key.
func TestLists(t *testing.T) {
	file := write(t, `nsqlookupd_tcp_addresses = ["a:1", "b:2"]`)
	for want, src := range map[string]Source{
		"a:1,b:2": {File: file},
		"c:3,d:4": {File: file, Environ: []string{"TIDINGS_LOOKUPD_TCP_ADDRESS=c:3, d:4,c:3"}},
		"e:5":     {File: file, Environ: []string{"TIDINGS_LOOKUPD_TCP_ADDRESS=c:3"}, Flags: map[string]string{"lookupd-tcp-address": "e:5"}},
		"":        {File: file, Environ: []string{"TIDINGS_LOOKUPD_TCP_ADDRESS="}},
	} {
		c, warn, err := Load(src)
		if err != nil || len(warn) > 0 || c.LookupdTCPAddresses.String() != want {
			t.Errorf("%v: %q %v, want %s", src, c.LookupdTCPAddresses, err, want)
		}
	}
	_, warn, err := Load(Source{Environ: []string{"TIDINGS_NSQLOOKUPD_TCP_ADDRESSES=a:1"}})
	if err != nil || len(warn) != 1 || !strings.Contains(warn[0], "did you mean TIDINGS_LOOKUPD_TCP_ADDRESS?") {
		t.Errorf("%v %q", err, warn)
	}
	_, _, err = Load(Source{Flags: map[string]string{"lookupd-tcp-address": "a:1,b"}})
	if err == nil || err.Error() != `--lookupd-tcp-address "b": want HOST:PORT, such as 127.0.0.1:4150` {
		t.Error(err)
	}
}

func TestDefaultsAreWeakest(t *testing.T) {
	own := map[string]string{"log-level": "warn", "msg-timeout": "3s"}
	c, _, err := Load(Source{Defaults: own, File: write(t, "msg_timeout = 4000"), Environ: []string{"TIDINGS_LOG_LEVEL=debug"}})
	if err != nil || c.LogLevel != "debug" || c.MsgTimeout != 4*time.Second {
		t.Fatalf("%v %s %s", err, c.LogLevel, c.MsgTimeout)
	}
}

func TestEnvironment(t *testing.T) {
	_, warn, err := Load(Source{Environ: []string{"TIDINGS_SERVER=x", "TIDINGS_MAX_MSG_SISE=1", "TIDINGS_SERVICE_HOST=10.0.0.1", "TIDINGS_MAX_RDY_COUNT="}})
	if err != nil || len(warn) != 1 || !strings.Contains(warn[0], "did you mean TIDINGS_MAX_MSG_SIZE?") {
		t.Fatalf("%v %q", err, warn)
	}
	_, _, err = Load(Source{Environ: []string{"TIDINGS_MAX_RDY_COUNT=-3"}})
	if err == nil || err.Error() != `TIDINGS_MAX_RDY_COUNT "-3": want at least 1` {
		t.Fatal(err)
	}
	c, _, err := Load(Source{Environ: []string{"TIDINGS_ADMIN_ADDRESS="}})
	if err != nil || c.AdminAddress != "" {
		t.Fatalf("%v %q", err, c.AdminAddress)
	}
}

// An nsqd.cfg moves over: nsqd's way of writing values works, keys without a
// meaning here warn, and what would guard the node is refused.
func TestNSQDFile(t *testing.T) {
	file := write(t, `id = 5
verbose = false
log_level = "info"
tcp_address = "0.0.0.0:14150"
nsqlookupd_tcp_addresses = ["127.0.0.1:4160"]
auth_http_addresses = []
mem_queue_size = 100
max_bytes_per_file = 104857600
sync_timeout = "2s"
msg_timeout = "120s"
max_msg_timeout = 60000
max_msg_size = 10485760
e2e_processing_latency_percentiles = [1.0, 0.99]
tls_required = false
tls_client_auth_policy = ""
`)
	c, warn, err := Load(Source{File: file, NSQD: true})
	if err != nil {
		t.Fatal(err)
	}
	got := []any{c.DataPath, c.TCPAddress, c.MemQueueSize, c.MsgTimeout, c.MaxMsgTimeout, c.MaxMsgSize, c.MaxBodySize}
	want := []any{".", "0.0.0.0:14150", 100, 2 * time.Minute, 2 * time.Minute, Bytes(10 << 20), Bytes(10 << 20)}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(List{"127.0.0.1:4160"}, c.LookupdTCPAddresses); d != "" {
		t.Error(d)
	}
	if c.NodeID != "5" || c.Unused.MaxBytesPerFile != 104857600 {
		t.Errorf("id %q, max_bytes_per_file %d", c.NodeID, c.Unused.MaxBytesPerFile)
	}
	if len(warn) != 5 {
		t.Errorf("%d warnings:\n%s", len(warn), strings.Join(warn, "\n"))
	}
}

// The settings of TLS and AUTH have nsqd's names, and what asks for protection
// that can't be given is an error.
func TestSecurity(t *testing.T) {
	c, _, err := Load(Source{NSQD: true, File: write(t, `tls_cert = "c.pem"
tls_key = "k.pem"
tls_required = true
tls_min_version = "tls1.3"
auth_http_addresses = ["127.0.0.1:4181", "https://auth.example/nsq"]
`)})
	if err != nil {
		t.Fatal(err)
	}
	required, err := c.TLSRequirement()
	version, verr := c.MinTLSVersion()
	got := []any{required, version, c.AuthHTTPAddresses, c.HTTPAuth, c.HTTPSAddress, err, verr}
	want := []any{TLSRequired, uint16(0x0304), List{"127.0.0.1:4181", "https://auth.example/nsq"}, false, "0.0.0.0:4152", nil, nil}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	cert := map[string]string{"tls-cert": "c", "tls-key": "k"}
	for _, x := range []struct {
		required, policy string
		want             TLSRequirement
	}{
		{"false", "", TLSNotRequired},
		{"TRUE", "", TLSRequired},
		{"tcp-https", "", TLSRequiredExceptHTTP},
		{"false", "require", TLSRequired},
		{"tcp-https", "require-verify", TLSRequiredExceptHTTP},
		{"0", "", TLSNotRequired},
	} {
		cert["tls-required"], cert["tls-client-auth-policy"] = x.required, x.policy
		c, _, err := Load(Source{Flags: cert})
		if err != nil {
			t.Errorf("%+v: %v", x, err)
			continue
		}
		if got, err := c.TLSRequirement(); err != nil || got != x.want {
			t.Errorf("%+v: %v %v", x, got, err)
		}
	}
	for want, flags := range map[string]map[string]string{
		"--tls-required":             {"tls-required": "true"},
		"--tls-required \"maybe\"":   {"tls-required": "maybe"},
		"--tls-client-auth-policy":   {"tls-client-auth-policy": "require"},
		"want require":               {"tls-client-auth-policy": "verify"},
		"want both":                  {"tls-cert": "c"},
		"--tls-min-version":          {"tls-min-version": "ssl3.0"},
		"--auth-http-request-method": {"auth-http-request-method": "put"},
		"--auth-http-address \"x\"":  {"auth-http-address": "127.0.0.1:1,x"},
		"--auth-http-address \"ftp":  {"auth-http-address": "ftp://x"},
		"--max-deflate-level":        {"max-deflate-level": "10"},
		"--https-address":            {"https-address": "/run/nsqd.sock"},
	} {
		if _, _, err := Load(Source{Flags: flags}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", flags, err, want)
		}
	}
	for _, path := range []string{"/run/nsqd.sock", "nsqd.sock", "./s"} {
		if _, _, err := Load(Source{Flags: map[string]string{"tcp-address": path, "http-address": path}}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A list is an array in the file, commas elsewhere, and has nsqd's key.
func TestListOfAuthServers(t *testing.T) {
	file := write(t, `auth_http_addresses = ["a:1", "b:2"]`)
	for want, src := range map[string]Source{
		"a:1,b:2": {File: file},
		"c:3,d:4": {File: file, Environ: []string{"TIDINGS_AUTH_HTTP_ADDRESS=c:3, d:4,c:3"}},
		"e:5":     {File: file, Flags: map[string]string{"auth-http-address": "e:5"}},
	} {
		c, warn, err := Load(src)
		if err != nil || len(warn) > 0 || c.AuthHTTPAddresses.String() != want {
			t.Errorf("%v: %q %v, want %s", src, c.AuthHTTPAddresses, err, want)
		}
	}
}

// No password is shown, however it is written.
func TestPasswordsAreNotShown(t *testing.T) {
	for value, want := range map[string]string{
		"":                                     "",
		"10.0.0.1:4181,auth:4181":              "10.0.0.1:4181,auth:4181",
		"http://u:p!w%3A@auth:1/x@y,https://b": "http://***@auth:1/x@y,https://b",
		"u:p@auth:1":                           "***@auth:1",
		"http://u:p@w@auth?x=@":                "http://***@auth?x=@",
		"n1@x=10.0.0.1:4190":                   "***@x=10.0.0.1:4190",
	} {
		var c Config
		c.AuthHTTPAddresses = ParseList(value)
		for _, d := range Describe(c.Fields(), nil) {
			if d.Key == "auth_http_addresses" && d.Value != want {
				t.Errorf("%s: %s, want %s", value, d.Value, want)
			}
		}
	}
}
