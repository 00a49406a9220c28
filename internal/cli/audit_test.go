package cli

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/spf13/cobra"
)

// leaves lists the commands that do something.
func leaves(cmd *cobra.Command) (out []*cobra.Command) {
	if !cmd.HasSubCommands() {
		return []*cobra.Command{cmd}
	}
	for _, c := range cmd.Commands() {
		out = append(out, leaves(c)...)
	}
	return out
}

// withoutJSON are the leaves that have no --json, and why; besides NSQ's
// programs, which have NSQ's flags and nothing else.
var withoutJSON = map[string]string{
	"tidings completion": "prints a script for a shell",
}

// tried is how scripts run a command.
type tried struct {
	text, json int      // runs that have to end well, without and with --json
	errors     []string // exit codes other than 0
}

// runsOf lists what the line of a script runs: a command of ours, its words, and
// the exit code that it has to end with.
func runsOf(words []string) (command []string, code string) {
	for len(words) > 0 && strings.HasPrefix(words[0], "[") { // [sh]
		words = words[1:]
	}
	if len(words) == 0 {
		return nil, ""
	}
	code = "0"
	switch {
	case words[0] == "exec":
		words = words[1:]
	case words[0] == "!" && len(words) > 2 && words[1] == "exec":
		words, code = words[2:], "some"
	case words[0] == "code" && len(words) > 2, words[0] == "until" && len(words) > 2:
		if words[0] == "code" {
			code = words[1]
		}
		words = words[2:]
	case words[0] == "node" && len(words) > 2 && words[1] == "start":
		kind := "serve"
		if len(words) > 3 && !strings.HasPrefix(words[3], "-") {
			kind = words[3]
		}
		return []string{"tidings", kind}, "0"
	default:
		return nil, ""
	}
	if len(words) == 3 && words[0] == "sh" && words[1] == "-c" {
		words = strings.Fields(words[2]) // the first that the shell runs counts
	}
	if len(words) > 0 && isNSQName(words[0]) {
		return append([]string{"tidings"}, words...), code
	}
	if len(words) > 1 && words[0] == "tidings" {
		return words, code
	}
	return nil, ""
}

// splitLine splits a line as testscript does, near enough: quotes keep words
// together, # begins a comment.
func splitLine(line string) (words []string) {
	var word strings.Builder
	quoted, begun := false, false
	end := func() {
		if begun {
			words = append(words, word.String())
			word.Reset()
			begun = false
		}
	}
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, begun = !quoted, true
		case quoted:
			word.WriteRune(r)
		case r == '#' && !begun:
			end()
			return words
		case r == ' ' || r == '\t':
			end()
		default:
			begun = true
			word.WriteRune(r)
		}
	}
	end()
	return words
}

// scripted is how the scripts try each command, by its path.
func scripted(t *testing.T, root *cobra.Command) map[string]*tried {
	t.Helper()
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	table := make(map[string]*tried)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		script := txtar.Parse(text).Comment // before the files
		for line := range strings.Lines(string(script)) {
			words, code := runsOf(splitLine(strings.TrimSpace(line)))
			if words == nil {
				continue
			}
			cmd, rest, err := root.Find(words[1:])
			if err != nil || cmd.HasSubCommands() {
				continue // a script about what is no command
			}
			entry := table[cmd.CommandPath()]
			if entry == nil {
				entry = &tried{}
				table[cmd.CommandPath()] = entry
			}
			switch {
			case code != "0":
				entry.errors = append(entry.errors, code)
			case slices.Contains(rest, "--json"):
				entry.json++
			default:
				entry.text++
			}
		}
	}
	return table
}

// Every command is in a script with its text, with --json and with an exit that
// is an error, so that none is added without them.
func TestEveryCommandHasAScript(t *testing.T) {
	root := newRoot(streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard})
	table := scripted(t, root)
	for _, cmd := range leaves(root) {
		path := cmd.CommandPath()
		entry := table[path]
		if entry == nil {
			t.Errorf("`%s` is in no script", path)
			continue
		}
		if entry.text == 0 {
			t.Errorf("no script runs `%s` for its text, to a good end", path)
		}
		if len(entry.errors) == 0 {
			t.Errorf("no script has an exit of `%s` that is an error (code N tidings …)", path)
		}
		json := cmd.Flags().Lookup("json") != nil
		nsq := isNSQName(cmd.Name()) && cmd.DisableFlagParsing // NSQ's flags
		switch why, none := withoutJSON[path]; {
		case json && (nsq || none):
			t.Errorf("`%s` has --json now: it is no exception any more (%s)", path, why)
		case json && entry.json == 0:
			t.Errorf("no script runs `%s --json` to a good end", path)
		case !json && !nsq && !none:
			t.Errorf("`%s` has no --json", path)
		}
	}
	for path := range withoutJSON {
		if cmd, _, err := root.Find(strings.Fields(path)[1:]); err != nil || cmd.CommandPath() != path {
			t.Errorf("`%s` is an exception, and there is no such command", path)
		}
	}
}

// The audit reads scripts as testscript does.
func TestScriptLines(t *testing.T) {
	for line, want := range map[string]string{
		`exec tidings topic ls --json`:              "0 tidings topic ls --json",
		`[sh] code 1 tidings doctor -c 'a b' # why`: "1 tidings doctor -c a b",
		`! exec tidings pub x`:                      "some tidings pub x",
		`until 'a b' tidings topic ls`:              "0 tidings topic ls",
		`node start a`:                              "0 tidings serve",
		`node start a dev --x`:                      "0 tidings dev",
		`node start a --x`:                          "0 tidings serve",
		`exec nsq_stat --status-every 1s`:           "0 tidings nsq_stat --status-every 1s",
		`stdout 'tidings topic ls'`:                 " ",
		`# exec tidings topic ls`:                   " ",
		`exec sh -c 'tidings topic ls | grep x'`:    "0 tidings topic ls | grep x",
		`exec tidings`:                              " ",
		`node stop a`:                               " ",
		`code 2 tidings topic create ''`:            "2 tidings topic create ",
	} {
		words, code := runsOf(splitLine(line))
		if got := code + " " + strings.Join(words, " "); words == nil && want != " " || words != nil && got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
