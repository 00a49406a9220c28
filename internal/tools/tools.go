// Package tools holds NSQ's utilities: nsq_to_file, nsq_to_http, nsq_to_nsq,
// nsq_tail, nsq_stat and to_nsq. They take NSQ's flags and are clients like any
// other: they talk to a node, a real nsqd or a real nsqlookupd through go-nsq
// and over HTTP, and know nothing of what is inside a node.
package tools

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/nsqio/go-nsq"

	"github.com/tidings-io/tidings/internal/version"
)

// Kinds of errors that Run returns, for the exit code; any other error is a
// failure.
var (
	// ErrUsage is a command line that can't be.
	ErrUsage = errors.New("usage")
	// ErrNotFound is a topic or channel that is not there.
	ErrNotFound = errors.New("not found")
	// ErrUnreachable is a server that does not answer at all.
	ErrUnreachable = errors.New("unreachable")
)

// kindError is an error of a kind, which its text does not repeat.
type kindError struct {
	kind, err error
}

func (e *kindError) Error() string   { return e.err.Error() }
func (e *kindError) Unwrap() []error { return []error{e.kind, e.err} }

func errorf(kind error, format string, args ...any) error {
	return &kindError{kind, fmt.Errorf(format, args...)}
}

func usagef(format string, args ...any) error { return errorf(ErrUsage, format, args...) }

// Env is what a utility has of its process.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	// Hangup brings SIGHUP, on which nsq_to_file begins new files; nil: none come.
	Hangup <-chan os.Signal
}

// Tool is one utility.
type Tool struct {
	Name    string // as NSQ calls the program
	Short   string // one line, without a full stop
	Long    string // what it does, and where it does better than NSQ's
	Example string // lines indented by two spaces

	make func() command
}

// command is a utility with its flags.
type command interface {
	// define adds the flags; the values are there after fs has parsed.
	define(fs *flag.FlagSet)
	// check refuses flags that can't be together, as ErrUsage.
	check() error
	// run does the work until it is done or ctx ends, which is no error.
	run(ctx context.Context, env Env) error
}

// All lists the utilities by name.
func All() []Tool {
	return []Tool{toFileTool(), toHTTPTool(), toNSQTool(), tailTool(), statTool(), publishTool()}
}

// Flags returns the utility's flags with their defaults and texts.
func (t Tool) Flags() *flag.FlagSet {
	fs, _, _ := t.build()
	return fs
}

func (t Tool) build() (fs *flag.FlagSet, c command, showVersion *bool) {
	fs = flag.NewFlagSet(t.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	showVersion = fs.Bool("version", false, "print the version")
	c = t.make()
	c.define(fs)
	return fs, c, showVersion
}

// Run parses words, which are -x VALUE, -x=VALUE, --x VALUE and --x=VALUE
// alike, and does what they ask for until it is done or ctx ends. The end of
// ctx is no error.
func (t Tool) Run(ctx context.Context, env Env, words []string) error {
	fs, c, showVersion := t.build()
	switch err := fs.Parse(words); {
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(env.Out)
		fmt.Fprintf(env.Out, "Usage of %s:\n", t.Name)
		fs.PrintDefaults()
		return nil
	case err != nil:
		return t.misused(usagef("%w%s", err, DidYouMean(fs, err)))
	case *showVersion:
		_, err := fmt.Fprintf(env.Out, "%s v%s (tidings %s)\n", t.Name, version.NSQ, version.String())
		return err
	case fs.NArg() > 0:
		return t.misused(usagef("%s takes flags only, and there is %q", t.Name, fs.Arg(0)))
	}
	if err := c.check(); err != nil {
		return t.misused(err)
	}
	return c.run(ctx, env)
}

// misused adds where help is.
func (t Tool) misused(err error) error { return usagef("%w; see `%s --help`", err, t.Name) }

// DidYouMean is "; did you mean -NAME?" with the flag that somebody may have
// meant, if err is that of an unknown one and another is like it.
func DidYouMean(fs *flag.FlagSet, err error) string {
	given, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !ok {
		return ""
	}
	var names []string
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	if name := nearest(given, names); name != "" {
		return "; did you mean -" + name + "?"
	}
	return ""
}

// nearest is the name that is most like the word: with few letters changed, or
// else the first that the word begins or stands in. Empty: none is.
func nearest(word string, names []string) string {
	word = strings.ToLower(strings.ReplaceAll(word, "_", "-"))
	best, least := "", 1+len(word)/3
	for _, name := range names {
		if d := distance(word, name); d <= least && d < len(word) {
			best, least = name, d-1
		}
	}
	for i := 0; best == "" && i < len(names) && len(word) > 2; i++ {
		if strings.Contains(names[i], word) {
			best = names[i]
		}
	}
	return best
}

// distance counts the letters to put in, take out or change between two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := corner
			if a[i] != b[j] {
				change++
			}
			corner = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// choice checks a flag whose value is one of a few words.
func choice(name, given string, of ...string) error {
	if slices.Contains(of, given) {
		return nil
	}
	hint := ""
	if word := nearest(given, of); word != "" {
		hint = "; did you mean " + word + "?"
	}
	return usagef("--%s %q: want one of %s%s", name, given, strings.Join(of, ", "), hint)
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(text string) error {
	*l = append(*l, text)
	return nil
}

// clientOpt is a flag that sets options of go-nsq's, as NAME,VALUE.
type clientOpt struct{ *nsq.Config }

func (o *clientOpt) String() string { return "" }

func (o *clientOpt) Set(text string) error {
	if name, _, _ := strings.Cut(text, ","); name == "" {
		return errors.New("want NAME,VALUE of a go-nsq option, such as max_attempts,10")
	}
	return (&nsq.ConfigFlag{Config: o.Config}).Set(text)
}

// userAgent is what servers see of a utility.
func userAgent(tool string) string {
	return fmt.Sprintf("%s/%s tidings/%s go-nsq/%s", tool, version.NSQ, version.Number, nsq.VERSION)
}
