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
	b.WriteString("\n`tidings config show --origin` shows the settings of a running node and where each comes from; with `-c FILE` or settings as\n" +
		"flags, those of a start.\n\n" +
		"## What commands speak to\n\n" +
		"Commands find a node by its HTTP address, `--server` or `TIDINGS_SERVER`, or by its admin address, `--admin` or `TIDINGS_ADMIN`;\n" +
		"the defaults are `127.0.0.1:4151` and `127.0.0.1:4180`. `https://` before an address is TLS, with the authorities in the PEM file\n" +
		"that `TIDINGS_CA` names, else the system's, and the certificate of `TIDINGS_CERT` and `TIDINGS_KEY` where the node wants one. The\n" +
		"secret for a node with AUTH is in `TIDINGS_SECRET`.\n\n" +
		"`tidings context add NAME` keeps all that under a name, in `tidings/contexts.toml` of `$XDG_CONFIG_HOME`, else of `~/.config`: tables\n" +
		"`[context.NAME]` with `server`, `admin`, `ca_file`, `cert_file`, `key_file` and `secret_file`, and `current`, which `tidings context use`\n" +
		"sets. What holds, the strongest first: the address's own flag, the context of `--context`, the address's variable, the context of\n" +
		"`TIDINGS_CONTEXT`, the current context, the default; `tidings context show` tells. The certificates and the secret of a context go to its\n" +
		"own addresses only, and to those on a command line with `--context`.\n\n" +
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
