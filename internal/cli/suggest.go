package cli

import (
	"flag"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-io/tidings/internal/config"
)

// didYouMean names the flag that somebody may have meant who gave one that is
// not there, with one dash as NSQ's programs write it; empty for another error.
func didYouMean(fs *flag.FlagSet, err error) string {
	var names []string
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	return suggestFlag(err, "flag provided but not defined: ", "-", names)
}

// didYouMeanOf is didYouMean for one of our own commands.
func didYouMeanOf(cmd *cobra.Command, err error) string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return suggestFlag(err, "unknown flag: ", "--", names)
}

func suggestFlag(err error, says, dashes string, names []string) string {
	given, ok := strings.CutPrefix(err.Error(), says+dashes)
	if !ok {
		return ""
	}
	if name := config.Nearest(strings.ReplaceAll(given, "_", "-"), names); name != "" {
		return "; did you mean " + dashes + name + "?"
	}
	return ""
}
