package cli

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-io/tidings/internal/tools"
)

var update = flag.Bool("update", false, "write the reference page")

const page = "../../docs/cli.md"

// reference is the page of all commands, made of what --help says.
func reference() string {
	var b strings.Builder
	b.WriteString("# Command line\n\n" +
		"Made from the commands themselves by `go test ./internal/cli -update`; `tidings COMMAND --help` says the same.\n\n" +
		"Standard output is data, standard error is talk: what is piped on is never mixed with messages for people.\n" +
		"Commands that print data take `--json`. What destroys asks on a terminal and needs `--yes` elsewhere.\n" +
		"A second Ctrl-C ends any command at once.\n\n" +
		"| exit code | |\n|---|---|\n| 0 | done |\n| 1 | failure |\n| 2 | usage: the command line or a setting can't be |\n" +
		"| 3 | not found: the topic, channel, file or folder |\n| 4 | denied |\n| 5 | unreachable: no node answers there |\n" +
		"| 6 | conflict: in use, or in the way |\n| 7 | timeout: it may still be done |\n")
	for _, cmd := range leaves(newRoot(streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard})) {
		describe(&b, cmd)
	}
	return b.String()
}

func describe(b *strings.Builder, cmd *cobra.Command) {
	parents, _, _ := strings.Cut(cmd.CommandPath(), " "+cmd.Name())
	fmt.Fprintf(b, "\n## %s\n\n`%s %s`\n\n", cmd.CommandPath(), parents, cmd.Use)
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	b.WriteString(text + "\n")
	if cmd.Example != "" {
		b.WriteString("\n```\n" + strings.ReplaceAll(strings.TrimPrefix(cmd.Example, "  "), "\n  ", "\n") + "\n```\n")
	}
	if name := cmd.Name(); name == "serve" || name == "dev" {
		b.WriteString("\nEvery setting of [configuration.md](configuration.md) is a flag as well.\n")
	}
	head := "\n| flag | default | |\n|---|---|---|\n"
	flags := cmd.LocalFlags()
	for _, t := range tools.All() {
		if t.Name == cmd.Name() {
			flags = pflag.NewFlagSet(t.Name, pflag.ContinueOnError)
			flags.AddGoFlagSet(t.Flags())
		}
	}
	if cmd.Name() == "nsqadmin" {
		flags = pflag.NewFlagSet(cmd.Name(), pflag.ContinueOnError)
		flags.AddGoFlagSet(nsqadminFlags(make(map[string]string)))
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if _, ok := f.Value.(*setting); ok && cmd.Name() != "nsqadmin" && cmd.Name() != "edge" || f.Name == "help" {
			return
		}
		short := ""
		if f.Shorthand != "" {
			short = ", `-" + f.Shorthand + "`"
		}
		def := ""
		if f.DefValue != "" && f.DefValue != "false" {
			def = "`" + strings.ReplaceAll(f.DefValue, "\n", `\n`) + "`"
		}
		fmt.Fprintf(b, "%s| `--%s`%s | %s | %s |\n", head, f.Name, short, def, strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(f.Usage))
		head = ""
	})
}

func TestReference(t *testing.T) {
	contexts(t, "")
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
		t.Fatalf("%s is not current; run go test ./internal/cli -update\n%s", page, d)
	}
}
