package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func jsonFlag(cmd *cobra.Command, v *bool) {
	cmd.Flags().BoolVar(v, "json", false, "print JSON")
}

func yesFlag(cmd *cobra.Command, v *bool) {
	cmd.Flags().BoolVarP(v, "yes", "y", false, "do not ask")
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints rows under a header, in columns.
func table(w io.Writer, header string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, strings.ReplaceAll(header, " ", "\t"))
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	return tw.Flush()
}

// confirm asks on a terminal; elsewhere the flag --yes is needed.
func confirm(ctx context.Context, s streams, yes bool, question string) error {
	if yes {
		return nil
	}
	if !isTerminal(s.in) {
		return usagef("%s needs --yes when nobody is there to ask", question)
	}
	fmt.Fprintf(s.err, "%s? [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // nothing ends a read of a terminal but the process's end
		line, _ := bufio.NewReader(s.in).ReadString('\n') // no answer is no
		answer <- line
	}()
	select {
	case line := <-answer:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(s.err)
	}
	return failf(exitFailure, "not confirmed, nothing done")
}

// isTerminal says that the stream is a character device that is not the null
// device.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// printJSONLine prints a value as one line.
func printJSONLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
