package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the reference page")

const page = "../../docs/configuration.md"

// reference is the page of all settings.
func reference() string {
	var b strings.Builder
	b.WriteString("# Configuration\n\n" +
		"Made from the settings themselves by `go test ./internal/config -update`.\n\n" +
		"A setting has one name everywhere: the flag `--max-msg-size` is `max_msg_size` in the TOML file given with\n" +
		"`--config`, and `TIDINGS_MAX_MSG_SIZE` in the environment. A flag wins over the environment, the environment\n" +
		"over the file, the file over the default. There are no tables. An unknown key in the file is an error.\n\n" +
		"A size is a number of bytes or has a unit: `\"64KiB\"`, `\"64MiB\"`, `\"1.5GiB\"` (powers of 1,024), `\"64MB\"` (of 1,000).\n" +
		"A duration has a unit, `\"30s\"`, `\"1h30m\"`; a bare number is milliseconds.\n" +
		"A list is an array in the file, `[\"10.0.0.5:4160\", \"10.0.0.6:4160\"]`, and has commas between its values elsewhere; its flag\n" +
		"may be repeated. Four keys are nsqd's: `nsqlookupd_tcp_addresses`, whose flag is `--lookupd-tcp-address` and\n" +
		"whose variable is `TIDINGS_LOOKUPD_TCP_ADDRESS`, `auth_http_addresses`, of `--auth-http-address`, `id`, of `--node-id`,\n" +
		"and `e2e_processing_latency_percentiles`, of `--e2e-processing-latency-percentile`.\n\n" +
		"`tidings config init` prints a file with every setting, `tidings config check FILE` checks one.\n\n" +
		"| setting | type | default | |\n|---|---|---|---|\n")
	c, n := Default(), DefaultNSQD()
	nsqd := n.Fields()
	for i, f := range c.Fields() {
		help := f.Help
		if f.Min != "" && f.Min != "0" && f.Min != "0s" {
			help += "; at least " + f.Min
		}
		if f.Max != "" {
			help += "; at most " + f.Max
		}
		if other := nsqd[i].String(); other != f.String() {
			help += fmt.Sprintf("; as nsqd: %s", code(other))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Key(), f.Type, code(f.String()), help)
	}
	b.WriteString("\nThe command line finds a node by `--server` or `TIDINGS_SERVER`, its HTTP address; the default is `127.0.0.1:4151`.\n" +
		"`https://` before it is TLS, with the authorities in the PEM file that `TIDINGS_CA` names, else the system's; the secret for a node\n" +
		"with AUTH is in `TIDINGS_SECRET`.\n\n" +
		"## Under the name nsqd\n\n" +
		"`tidings nsqd`, or the binary called as `nsqd`, takes nsqd's flags (`-x v`, `-x=v`, `--x v` and `--x=v`) and its configuration\n" +
		"file. Settings of nsqd's that mean nothing here are accepted with a warning. Data is in\n" +
		"`<data-path>/tidings`; a data path that holds an nsqd's backlog (`nsqd.dat`) and no `tidings/` is refused unless\n" +
		"`--ignore-nsqd-data` is given.\n")
	return b.String()
}

func code(text string) string {
	if text == "" {
		return "empty"
	}
	return "`" + text + "`"
}

func TestReference(t *testing.T) {
	want := reference()
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, strings.ReplaceAll(string(got), "\r\n", "\n")); d != "" {
		t.Fatalf("%s is not current; run go test ./internal/config -update\n%s", page, d)
	}
}
