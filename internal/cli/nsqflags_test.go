package cli

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/config"
)

// nsqFlag is a flag of an NSQ program: a value that it takes, or "" for one
// that needs none, and its key in the configuration file where that does not
// follow from the name, "-" where there is none.
type nsqFlag struct{ name, value, key string }

// nsqdOwn are the flags of nsqd 1.3.0, as its --help lists them, and a few of
// older ones.
var nsqdOwn = []nsqFlag{
	{"config", "nsqd.cfg", "-"},
	{"version", "", "-"},
	{"verbose", "", "verbose"},
	{"log-level", "info", ""},
	{"log-prefix", "[x] ", ""},
	{"node-id", "5", "id"},
	{"worker-id", "", "-"},
	{"tcp-address", "127.0.0.1:0", ""},
	{"http-address", "127.0.0.1:0", ""},
	{"https-address", "127.0.0.1:0", ""},
	{"broadcast-address", "h", ""},
	{"broadcast-tcp-port", "1", ""},
	{"broadcast-http-port", "1", ""},
	{"lookupd-tcp-address", "127.0.0.1:4160", "nsqlookupd_tcp_addresses"},
	{"auth-http-address", "127.0.0.1:80", "auth_http_addresses"},
	{"auth-http-request-method", "post", ""},
	{"http-client-connect-timeout", "3s", ""},
	{"http-client-request-timeout", "3s", ""},
	{"data-path", "d", ""},
	{"mem-queue-size", "0", ""},
	{"max-bytes-per-file", "1", ""},
	{"sync-every", "1", ""},
	{"sync-timeout", "1s", ""},
	{"queue-scan-interval", "1s", ""},
	{"queue-scan-refresh-interval", "1s", ""},
	{"queue-scan-selection-count", "1", ""},
	{"queue-scan-worker-pool-max", "1", ""},
	{"queue-scan-dirty-percent", "0.5", ""},
	{"msg-timeout", "2s", ""},
	{"max-msg-timeout", "20m", ""},
	{"max-msg-size", "1000", ""},
	{"max-body-size", "2000000", ""},
	{"max-req-timeout", "2h", ""},
	{"max-heartbeat-interval", "30s", ""},
	{"max-rdy-count", "1", ""},
	{"max-output-buffer-size", "65535", ""},
	{"max-output-buffer-timeout", "2s", ""},
	{"min-output-buffer-timeout", "2ms", ""},
	{"output-buffer-timeout", "20ms", ""},
	{"max-channel-consumers", "1", ""},
	{"statsd-address", "127.0.0.1:8125", ""},
	{"statsd-prefix", "x", ""},
	{"statsd-interval", "1s", ""},
	{"statsd-mem-stats", "", ""},
	{"statsd-udp-packet-size", "1400", ""},
	{"statsd-exclude-ephemeral", "", ""},
	{"e2e-processing-latency-percentile", "1.0,0.99", "e2e_processing_latency_percentiles"},
	{"e2e-processing-latency-window-time", "1m", ""},
	{"tls-cert", "", "tls_cert"},
	{"tls-key", "", "tls_key"},
	{"tls-client-auth-policy", "", "tls_client_auth_policy"},
	{"tls-root-ca-file", "x", ""},
	{"tls-required", "", ""},
	{"tls-min-version", "tls1.0", ""},
	{"deflate", "", ""},
	{"max-deflate-level", "9", ""},
	{"snappy", "", ""},
	{"topology-region", "r", ""},
	{"topology-zone", "z", ""},
	{"enable-experiment", "topology-aware-consumption", ""},
}

// nsqlookupdOwn are those of nsqlookupd.
var nsqlookupdOwn = []nsqFlag{
	{"config", "nsqlookupd.cfg", "-"},
	{"version", "", "-"},
	{"verbose", "", "-"},
	{"log-level", "info", ""},
	{"log-prefix", "[x] ", "-"},
	{"tcp-address", "127.0.0.1:0", ""},
	{"http-address", "127.0.0.1:0", ""},
	{"broadcast-address", "h", ""},
	{"inactive-producer-timeout", "1s", ""},
	{"tombstone-lifetime", "1s", ""},
}

// valued are flags above that take a value which only an empty one suits here.
var valued = map[string]bool{"tls-cert": true, "tls-key": true, "tls-client-auth-policy": true}

// spellings are the ways to write a flag with its value.
func (f nsqFlag) spellings() map[string][]string {
	if f.value == "" && !valued[f.name] {
		return map[string][]string{
			"-x": {"-" + f.name}, "--x": {"--" + f.name}, "-x=v": {"-" + f.name + "=false"}, "--x=v": {"--" + f.name + "=false"},
		}
	}
	return map[string][]string{
		"-x v": {"-" + f.name, f.value}, "--x v": {"--" + f.name, f.value},
		"-x=v": {"-" + f.name + "=" + f.value}, "--x=v": {"--" + f.name + "=" + f.value},
	}
}

// withGlobals adds the flags that both programs share.
func withGlobals(fs *flag.FlagSet) *flag.FlagSet {
	fs.Bool("version", false, "")
	fs.String("config", "", "")
	return fs
}

// TestNSQFlags: every flag of nsqd and nsqlookupd in each spelling, and every
// key of their files.
func TestNSQFlags(t *testing.T) {
	for program, own := range map[string][]nsqFlag{"nsqd": nsqdOwn, "nsqlookupd": nsqlookupdOwn} {
		for _, f := range own {
			for _, spelling := range slices.Sorted(maps.Keys(f.spellings())) {
				t.Run(program+"/"+f.name+"/"+spelling, func(t *testing.T) {
					set := make(map[string]string)
					fs := nsqdFlags(set)
					if program == "nsqlookupd" {
						var err error
						if fs, err = lookupdFlags(set); err != nil {
							t.Fatal(err)
						}
					}
					fs = withGlobals(fs)
					if err := fs.Parse(append(joinWorkerID(f.spellings()[spelling]), "-log-level=warn")); err != nil {
						t.Fatal(err)
					}
					if fs.NArg() > 0 {
						t.Errorf("%q is left", fs.Args())
					}
					if set["log-level"] != "warn" {
						t.Error("what follows is not read")
					}
					if f.name == "tls-required" && !strings.Contains(spelling, "v") {
						set["tls-cert"], set["tls-key"] = "c", "k"
					}
					if _, _, err := config.Load(config.Source{Flags: set, NSQD: true}); err != nil {
						t.Error(err)
					}
				})
			}
			if f.key != "-" {
				t.Run(program+"/"+f.name+"/key", func(t *testing.T) { f.inFile(t) })
			}
		}
	}
}

// inFile wants the key to be known.
func (f nsqFlag) inFile(t *testing.T) {
	key := f.key
	if key == "" {
		key = strings.ReplaceAll(f.name, "-", "_")
	}
	value := `"` + f.value + `"`
	switch {
	case key == "e2e_processing_latency_percentiles":
		value = "[1.0, 0.99]"
	case strings.HasSuffix(key, "addresses") || key == "enable_experiment":
		value = "[" + value + "]"
	case f.value == "" && !valued[f.name]:
		value = "false"
	}
	file := filepath.Join(t.TempDir(), "nsqd.cfg")
	if err := os.WriteFile(file, []byte(key+" = "+value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, warnings, err := config.Load(config.Source{File: file, NSQD: true})
	if err != nil {
		t.Fatal(err)
	}
	unused := false
	for _, u := range cfg.Unused.Fields() {
		unused = unused || u.Key() == key
	}
	if (len(warnings) > 0) != unused {
		t.Errorf("warnings: %q", warnings)
	}
}

// TestWorkerID: older nsqds took a number.
func TestWorkerID(t *testing.T) {
	got := joinWorkerID([]string{"-worker-id", "5", "--worker-id", "-verbose", "-worker-id=6", "-worker-id"})
	want := []string{"-worker-id=5", "--worker-id", "-verbose", "-worker-id=6", "-worker-id"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
