package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/tools"
)

// newTools are NSQ's utilities, under the names of NSQ's programs.
func newTools(s streams) (cmds []*cobra.Command) {
	for _, t := range tools.All() {
		cmds = append(cmds, &cobra.Command{
			Use: t.Name + " [FLAGS]", Short: t.Short, Example: t.Example,
			Long:               t.Long + "\n\nIt also runs when the program is called by the name " + t.Name + " (a symlink will do).",
			DisableFlagParsing: true, // NSQ's take -x v, -x=v and --x v alike
			RunE: func(cmd *cobra.Command, a []string) error {
				return runTool(cmd.Context(), s, t, a)
			},
		})
	}
	return cmds
}

func runTool(ctx context.Context, s streams, t tools.Tool, words []string) error {
	hangup := make(chan os.Signal, 1)
	if t.Name == "nsq_to_file" { // the others die of it
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
	}
	err := t.Run(ctx, tools.Env{In: s.in, Out: s.out, Err: s.err, Hangup: hangup}, words)
	for kind, code := range map[error]int{
		tools.ErrUsage: exitUsage, tools.ErrNotFound: exitNotFound, tools.ErrUnreachable: exitUnreachable,
	} {
		if errors.Is(err, kind) {
			return &exitError{code, err}
		}
	}
	return err
}
