// Package cli is the command line: one constructor per command, no globals.
// stdout is data, stderr is talk; exit codes stand in exit.go.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/tools"
)

// streams are the process's three, replaceable in tests.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// Main runs the command line args (args[0] is the program's name) and returns
// the exit code.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	s := streams{in: in, out: out, err: errOut}
	root := newRoot(s)
	words := args[1:]
	if name := strings.TrimSuffix(filepath.Base(args[0]), ".exe"); isNSQName(name) {
		words = append([]string{name}, words...)
	}
	root.SetArgs(words)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errSilent) {
		fmt.Fprintf(errOut, "tidings: %v\n", err)
	}
	return exitCode(err)
}

// errSilent ends a command that has already said all there is to say.
var errSilent = errors.New("")

// isNSQName says that the binary answers to this name as the NSQ program.
func isNSQName(name string) bool {
	return name == "nsqd" || name == "nsqlookupd" || name == "nsqadmin" || slices.ContainsFunc(tools.All(), func(t tools.Tool) bool { return t.Name == name })
}

func newRoot(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tidings",
		Short: "A durable realtime message platform that speaks NSQ",
		Long: `tidings is a message platform in one binary. Everything that speaks NSQ speaks
to it unchanged, and what it acknowledges is on disk.

Start a node:       tidings dev
Publish:            tidings pub orders 'hello'
Consume:            tidings sub orders -C audit --follow

Commands that print data take --json. ` + exitHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q; `tidings help` lists the commands%s", args[0], suggestions(cmd, args[0]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetIn(s.in)
	cmd.SetOut(s.out)
	cmd.SetErr(s.err)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w%s; see `%s --help`", err, didYouMeanOf(cmd, err), cmd.CommandPath())
	})
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.AddGroup(&cobra.Group{ID: "node", Title: "Run a node:"}, &cobra.Group{ID: "use", Title: "Use it:"},
		&cobra.Group{ID: "look", Title: "Look after it:"}, &cobra.Group{ID: "nsq", Title: "NSQ's utilities:"})
	for group, cmds := range map[string][]*cobra.Command{
		"node": {newDev(s), newServe(s), newEdge(s), newNSQD(s), newNSQLookupd(s), newNSQAdmin(s), newConfig(s)},
		"use":  {newPub(s), newSub(s), newTopic(s), newChannel(s), newImport(s), newContext(s)},
		"look": {newTop(s), newDoctor(s), newCluster(s), newLog(s), newBench(s), newVersion(s), newCompletion(s)},
		"nsq":  newTools(s),
	} {
		for _, c := range cmds {
			c.GroupID = group
			cmd.AddCommand(c)
		}
	}
	completeNothing(cmd)
	return cmd
}

func suggestions(cmd *cobra.Command, word string) string {
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(word); len(s) > 0 {
		return "; did you mean " + strings.Join(s, " or ") + "?"
	}
	return ""
}

// args wraps a cobra argument check so that its failure is a usage error that
// says what is wanted.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if check(cmd, a) == nil {
			return nil
		}
		got := "nothing is given"
		if len(a) > 0 {
			got = fmt.Sprintf("%q is given", a)
		}
		_, want, _ := strings.Cut(cmd.Use, " ")
		if want == "" {
			want = "no argument"
		}
		return usagef("`%s` wants %s, and %s; see `%s --help`", cmd.CommandPath(), want, got, cmd.CommandPath())
	}
}

// parent is a command that only holds others.
func parent(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q for %q%s; see `%s --help`", args[0], cmd.CommandPath(), suggestions(cmd, args[0]), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprint(cmd.ErrOrStderr(), cmd.UsageString())
			return &exitError{exitUsage, errSilent}
		},
	}
	cmd.AddCommand(children...)
	return cmd
}
