package cli

import (
	"flag"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-io/tidings/internal/tools"
)

const guide = "../../docs/from-nsq.md"

// guideFlags are the flags of the programs that the guide speaks of, by the name
// that they are called by.
func guideFlags(t *testing.T, root *cobra.Command) map[string]map[string]bool {
	t.Helper()
	out := make(map[string]map[string]bool)
	add := func(program string, fs *flag.FlagSet) {
		known := map[string]bool{"version": true, "config": true}
		fs.VisitAll(func(f *flag.Flag) { known[f.Name] = true })
		out[program] = known
	}
	add("nsqd", nsqdFlags(make(map[string]string)))
	add("nsqd.nsq", nsqdFlags(make(map[string]string))) // the real one: ours knows all of its flags
	lookupd, err := lookupdFlags(make(map[string]string))
	if err != nil {
		t.Fatal(err)
	}
	add("nsqlookupd", lookupd)
	for _, t := range tools.All() {
		add(t.Name, t.Flags())
	}
	all := make(map[string]bool)
	for _, cmd := range leaves(root) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { all[f.Name] = true })
	}
	out["tidings"] = all
	return out
}

// Every flag that the guide names is there, and in a command it is one of that
// program.
func TestGuideFlags(t *testing.T) {
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	programs := guideFlags(t, newRoot(streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard}))
	anywhere := map[string]bool{"help": true}
	for _, known := range programs {
		for name := range known {
			anywhere[name] = true
		}
	}
	flags := regexp.MustCompile(`(?:^|[\s|` + "`" + `])--([a-z][a-z0-9-]*)`)
	n := 0
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", "")) {
		known := anywhere
		if words := strings.Fields(line); strings.HasPrefix(line, "    ") && programs[words[0]] != nil {
			known = programs[words[0]]
		} else if strings.HasPrefix(line, "    ") {
			continue // another program's, curl's say
		}
		for _, m := range flags.FindAllStringSubmatch(line, -1) {
			if n++; !known[m[1]] && m[1] != "x" { // the spellings of any flag
				t.Errorf("there is no --%s: %s", m[1], line)
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d flags were found: the guide has another form", n)
	}
}
