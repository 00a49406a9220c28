package cli

import (
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// The admin API gives the equal command line of whatever it does. Those lines
// must be commands.
func TestCommandLinesOfTheAdminAPI(t *testing.T) {
	text, err := os.ReadFile("../front/admin/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	root := newRoot(streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard})
	lines := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			o, ok := op.(map[string]any)
			if !ok {
				continue // parameters
			}
			line, ok := o["x-cli"].(string)
			if !ok && method != "get" {
				t.Errorf("%s %s names no command line", method, path)
			}
			if rest, ours := strings.CutPrefix(line, "tidings "); ours {
				lines++
				checkLine(t, root, rest)
			}
		}
	}
	for _, line := range consoleLines {
		checkLine(t, root, line)
	}
	if lines < 15 {
		t.Errorf("only %d command lines", lines)
	}
}

// consoleLines are those that the console puts together itself
// (pages/browse.tsx, peek.tsx and tail.tsx).
var consoleLines = []string{
	"topic peek {topic} --from latest",
	"topic peek {topic} --search {text}",
	"topic peek {topic} --partition 0 --offset 12 --search {text}",
	"topic peek {topic} --partition 0 --time 2026-11-21T08:00:00.000Z",
	"topic tail {topic}",
	"topic tail {topic} --search {text}",
	"channel peek {topic} {channel}",
	"channel peek {topic} {channel} --state in_flight",
	"channel peek {topic} {channel} --state deferred",
}

var placeholder = regexp.MustCompile(`\{[a-z]+\}`)

func checkLine(t *testing.T, root *cobra.Command, line string) {
	t.Helper()
	words := strings.Fields(placeholder.ReplaceAllString(line, "x"))
	cmd, rest, err := root.Find(words)
	if err != nil || !cmd.Runnable() {
		t.Errorf("tidings %s: %v", line, err)
		return
	}
	var args []string
	for i := 0; i < len(rest); i++ {
		name, isFlag := strings.CutPrefix(rest[i], "--")
		if !isFlag {
			args = append(args, rest[i])
			continue
		}
		f := cmd.Flags().Lookup(name)
		if f == nil {
			t.Errorf("tidings %s: there is no --%s", line, name)
		} else if f.Value.Type() != "bool" {
			i++
		}
	}
	if err := cmd.ValidateArgs(args); err != nil {
		t.Errorf("tidings %s: %v", line, err)
	}
}
