package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/version"
)

func newNSQD(s streams) *cobra.Command {
	return &cobra.Command{
		Use: "nsqd [FLAGS]", Short: "Run a node under nsqd's flag names and defaults",
		Long: `Run a node that takes nsqd's flags, its configuration file and its defaults, as
it also does when called by the name nsqd (a symlink will do). Its own data is
in <data-path>/tidings. Flags without a meaning here are accepted with a
warning.
` + "`tidings nsqd --help`" + ` lists the flags.`,
		Example: `  tidings nsqd --data-path=/var/lib/nsqd
  ln -s "$(command -v tidings)" /usr/local/bin/nsqd`,
		DisableFlagParsing: true, // nsqd takes -x v, -x=v and --x v alike
		RunE: func(cmd *cobra.Command, a []string) error {
			return runNSQD(cmd.Context(), s, a)
		},
	}
}

// unusedSetting is a setting of nsqd's that has no effect.
type unusedSetting struct{ setting }

// ignored is a flag that is accepted and has no effect.
type ignored struct {
	text    string
	noValue bool
}

func (i *ignored) String() string        { return i.text }
func (i *ignored) Set(text string) error { i.text = text; return nil }
func (i *ignored) IsBoolFlag() bool      { return i.noValue }

// asNSQ reads the command line of a program of NSQ's, and its settings, which
// fit makes whole. done: it was asked for help or the version, and has them.
func asNSQ(s streams, name string, fs *flag.FlagSet, words []string, src config.Source, fit func(*config.Config) error) (cfg config.Config, logger leveledLogger, done bool, err error) {
	file, done, err := parseNSQ(s, name, fs, words)
	if done || err != nil {
		return cfg, logger, done, err
	}
	src.File, src.Environ, src.NSQD = file, os.Environ(), true
	cfg, warnings, err := config.Load(src)
	if err != nil {
		return cfg, logger, false, settingsError(err)
	}
	if err := fit(&cfg); err != nil {
		return cfg, logger, false, err
	}
	logger = newLogger(s.err, cfg)
	logWarnings(logger, name, fs, warnings)
	return cfg, logger, false, nil
}

// parseNSQ reads the command line of a program of NSQ's. file is the one given
// with -config; done says that help or the version was asked for and shown.
func parseNSQ(s streams, name string, fs *flag.FlagSet, words []string) (file string, done bool, err error) {
	showVersion := fs.Bool("version", false, "print the version")
	fs.StringVar(&file, "config", "", "path of "+name+"'s configuration file")
	if err := fs.Parse(words); errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(s.out, "Usage: %s [FLAGS]     -x VALUE, -x=VALUE, --x VALUE and --x=VALUE are the same\n", name)
		fs.SetOutput(s.out)
		fs.PrintDefaults()
		return file, true, nil
	} else if err != nil {
		return file, false, usagef("%w%s; see `%s --help`", err, didYouMean(fs, err), name)
	}
	if *showVersion {
		_, err := fmt.Fprintf(s.out, "%s v%s (tidings %s)\n", name, version.NSQ, version.String())
		return file, true, err
	}
	if fs.NArg() > 0 {
		return file, false, usagef("%s takes no argument, and there is %q; see `%s --help`", name, fs.Arg(0), name)
	}
	return file, false, nil
}

// logWarnings tells of settings that were adapted, and of flags without effect.
func logWarnings(logger leveledLogger, name string, fs *flag.FlagSet, warnings []string) {
	for _, w := range warnings {
		logger.Warn(w)
	}
	if useless := passedOver(fs); len(useless) > 0 {
		logger.Warn("flags accepted for "+name+"'s sake have no effect", "flags", strings.Join(useless, " "))
	}
}

func runNSQD(ctx context.Context, s streams, words []string) error {
	set := make(map[string]string)
	fs := nsqdFlags(set)
	words = joinWorkerID(words)
	cfg, logger, done, err := asNSQ(s, "nsqd", fs, words, config.Source{Flags: set}, nsqdDataPath)
	if done || err != nil {
		return err
	}
	src := config.Source{Flags: set, Environ: os.Environ(), NSQD: true, File: fs.Lookup("config").Value.String()}
	return runNode(ctx, logger, cfg, src, func(cfg config.Config, a node.Addrs) error {
		saysOpen(logger.Logger, &cfg, a)
		return nil
	})
}

// joinWorkerID joins `-worker-id 5`, as older nsqds took it, to one word. Of
// today's it is a flag without a value.
func joinWorkerID(words []string) []string {
	out := make([]string, 0, len(words))
	for i := 0; i < len(words); i++ {
		w := words[i]
		if (w == "-worker-id" || w == "--worker-id") && i+1 < len(words) {
			if _, err := strconv.Atoi(words[i+1]); err == nil {
				i++
				w += "=" + words[i]
			}
		}
		out = append(out, w)
	}
	return out
}

// nsqdFlags knows every flag of nsqd's; set notes those of the settings.
func nsqdFlags(set map[string]string) *flag.FlagSet {
	fs := flag.NewFlagSet("nsqd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	c := config.DefaultNSQD()
	for _, f := range c.Fields() {
		fs.Var(&setting{field: f, set: set}, f.Name, f.Help)
	}
	for _, f := range c.Unused.Fields() {
		fs.Var(&unusedSetting{setting{field: f, set: set}}, f.Name, "nsqd's; accepted without effect")
	}
	return fs
}

// saysOpen says in one line who can reach the node, and warns if that is
// everybody.
func saysOpen(logger *slog.Logger, c *config.Config, a node.Addrs) {
	var lacks []string
	if !c.TLSOffered() {
		lacks = append(lacks, "TLS")
	}
	switch {
	case len(c.AuthHTTPAddresses) == 0:
		lacks = append(lacks, "AUTH")
	case !c.HTTPAuth:
		lacks = append(lacks, "AUTH over HTTP (--http-auth)")
	}
	if len(lacks) == 0 {
		return
	}
	without := "without " + strings.Join(lacks, " or ")
	var exposed []string
	for _, addr := range []string{a.TCP, a.HTTP, a.HTTPS, a.Admin, a.LookupTCP, a.LookupHTTP, a.NSQAdmin} {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			continue
		}
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			exposed = append(exposed, addr)
		}
	}
	if len(exposed) > 0 {
		logger.Warn("open to every host that can reach this one, "+without+", as nsqd is", "addresses", strings.Join(exposed, " "))
		return
	}
	logger.Info("open to this machine only, "+without, "tcp", a.TCP, "http", a.HTTP)
}

// passedOver names the flags that were given and have no effect.
func passedOver(fs *flag.FlagSet) (names []string) {
	fs.Visit(func(f *flag.Flag) {
		switch f.Value.(type) {
		case *ignored, *unusedSetting:
			if f.Name != "verbose" {
				names = append(names, "--"+f.Name)
			}
		}
	})
	return names
}

// nsqdDataPath puts our data beside nsqd's, and refuses to leave a backlog of
// nsqd's behind unseen.
func nsqdDataPath(cfg *config.Config) error {
	base := cfg.DataPath
	if base == "" {
		base = "."
	}
	cfg.DataPath = filepath.Join(base, "tidings")
	if cfg.IgnoreNSQDData {
		return nil
	}
	if _, err := os.Stat(filepath.Join(base, "nsqd.dat")); err != nil {
		return nil
	}
	if _, err := os.Stat(cfg.DataPath); err == nil {
		return nil
	}
	admin, flags := cfg.AdminAddress, "--ignore-nsqd-data"
	if admin == "" {
		admin = "127.0.0.1:4180"
		flags += " --admin-address " + admin
	}
	return failf(exitConflict, "%s holds an nsqd's data (nsqd.dat), which this node would not deliver. "+
		"To take it over, start with %s, and then run `tidings import nsqd %s --admin %s`", base, flags, base, admin)
}
