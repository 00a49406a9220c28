package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/version"
	"github.com/tidings-io/tidings/internal/vfs"
)

// settingFlags adds a flag for every setting. What was set on the command line
// is found in the returned map after parsing.
func settingFlags(f *pflag.FlagSet, c config.Config) map[string]string {
	set := make(map[string]string)
	for _, field := range c.Fields() {
		f.AddFlag(&pflag.Flag{
			Name: field.Name, Usage: field.Help, DefValue: field.Default,
			Value: &setting{field: field, set: set}, NoOptDefVal: noOptDefault(field),
		})
	}
	return set
}

func noOptDefault(f config.Field) string {
	if f.IsBool() {
		return "true"
	}
	return ""
}

// setting is one setting as a flag value: it checks the text, and notes it.
type setting struct {
	field config.Field
	set   map[string]string
}

func (v *setting) String() string   { return v.field.String() }
func (v *setting) Type() string     { return v.field.Type }
func (v *setting) IsBoolFlag() bool { return v.field.IsBool() }

// Set notes the text for config.Load; a bad value is refused here, where the
// user can still be told how the flag is used.
func (v *setting) Set(text string) error {
	if err := v.field.Set(text); err != nil {
		return err
	}
	v.set[v.field.Name] = text
	return nil
}

func newServe(s streams) *cobra.Command {
	var file string
	var set map[string]string
	cmd := &cobra.Command{
		Use: "serve", Short: "Run a node", Args: args(cobra.NoArgs),
		Long: `Run a node. Settings come from flags, the environment (--data-path is
TIDINGS_DATA_PATH), the TOML file given with --config (data_path), in this order.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := config.Load(config.Source{File: file, Environ: os.Environ(), Flags: set})
			if err != nil {
				return usagef("%w", err)
			}
			return runNode(cmd.Context(), s, cfg, nil)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "TOML file with settings")
	set = settingFlags(cmd.Flags(), config.Default())
	return cmd
}

// devSegment keeps a developer's data folder small and its start quick.
const devSegment = "16MiB"

func newDev(s streams) *cobra.Command {
	var set map[string]string
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a durable node on this machine, ready for a first message", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags := map[string]string{"wal-segment-size": devSegment, "checkpoint-size": devSegment, "log-level": "warn"}
			for k, v := range set {
				flags[k] = v
			}
			cfg, _, err := config.Load(config.Source{Environ: os.Environ(), Flags: flags})
			if err != nil {
				return usagef("%w", err)
			}
			return runNode(cmd.Context(), s, cfg, func(n *node.Node) { banner(s.err, cfg, n) })
		},
	}
	set = settingFlags(cmd.Flags(), config.Default())
	return cmd
}

// banner says what listens, and what to type next.
func banner(w io.Writer, cfg config.Config, n *node.Node) {
	a := n.Addrs()
	at := ""
	if a.HTTP != defaultServer {
		at = " --server " + a.HTTP
	}
	metrics := ""
	if a.Admin != "" {
		metrics = fmt.Sprintf("  metrics    http://%s/metrics\n", a.Admin)
	}
	fmt.Fprintf(w, `tidings %s, one durable node; data in %s

  NSQ TCP    %s
  NSQ HTTP   http://%s
%s
Publish a message, then consume it:

  curl -d 'hello' 'http://%s/pub?topic=orders'
  tidings pub orders 'hello'%s
  tidings sub orders -C audit --follow%s

(From a clone, 'go run ./cmd/tidings' stands for 'tidings'. Ctrl-C stops the node; what it acknowledged stays.)
`, version.String(), cfg.DataPath, a.TCP, a.HTTP, metrics, a.HTTP, at, at)
}

// runNode builds a node and lives as long as it does.
func runNode(ctx context.Context, s streams, cfg config.Config, ready func(*node.Node)) error {
	logger, err := newLogger(s.err, cfg)
	if err != nil {
		return usagef("%w", err)
	}
	n, err := node.New(node.Options{Config: cfg, FS: vfs.Default(), Logger: logger.Logger, LogLevel: logger.level})
	if err != nil {
		return err
	}
	return n.Run(ctx, func() {
		if ready != nil {
			ready(n)
		}
	})
}

type leveledLogger struct {
	*slog.Logger
	level *slog.LevelVar
}

// newLogger writes text on a terminal and JSON elsewhere, unless told.
func newLogger(w io.Writer, cfg config.Config) (leveledLogger, error) {
	level := new(slog.LevelVar)
	name := cfg.LogLevel
	if name == "fatal" { // nsqd's name for "hardly anything"
		name = "error"
	}
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return leveledLogger{}, fmt.Errorf("--log-level %q: want debug, info, warn or error", cfg.LogLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" || (cfg.LogFormat == "auto" && !isTerminal(w)) {
		return leveledLogger{slog.New(slog.NewJSONHandler(w, o)), level}, nil
	}
	return leveledLogger{slog.New(slog.NewTextHandler(w, o)), level}, nil
}

// nsqdPassedOver are nsqd's flags that mean nothing here yet or any more; they
// are accepted so that scripts go on working. true: the flag takes no value.
var nsqdPassedOver = map[string]bool{
	"verbose": true, "node-id": false, "worker-id": false, "log-prefix": false, "https-address": false,
	"broadcast-tcp-port": false, "broadcast-http-port": false, "lookupd-tcp-address": false,
	"auth-http-address": false, "auth-http-request-method": false,
	"http-client-connect-timeout": false, "http-client-request-timeout": false,
	"max-bytes-per-file": false, "sync-every": false, "sync-timeout": false,
	"queue-scan-interval": false, "queue-scan-refresh-interval": false, "queue-scan-selection-count": false,
	"queue-scan-worker-pool-max": false, "queue-scan-dirty-percent": false,
	"statsd-address": false, "statsd-interval": false, "statsd-mem-stats": true, "statsd-prefix": false,
	"statsd-udp-packet-size": false, "statsd-exclude-ephemeral": true,
	"e2e-processing-latency-percentile": false, "e2e-processing-latency-window-time": false,
	"tls-cert": false, "tls-key": false, "tls-client-auth-policy": false, "tls-root-ca-file": false,
	"tls-required": true, "tls-min-version": false,
	"deflate": true, "max-deflate-level": false, "snappy": true, "enable-experiment": false,
}

func newNSQD(s streams) *cobra.Command {
	return &cobra.Command{
		Use: "nsqd [FLAGS]", Short: "Run a node under nsqd's flag names and defaults",
		DisableFlagParsing: true, // nsqd takes -x v, -x=v and --x v alike
		RunE: func(cmd *cobra.Command, a []string) error {
			return runNSQD(cmd.Context(), s, a)
		},
	}
}

// ignored is a flag that is accepted and has no effect.
type ignored struct{ noValue bool }

func (i ignored) String() string   { return "" }
func (i ignored) Set(string) error { return nil }
func (i ignored) IsBoolFlag() bool { return i.noValue }

func runNSQD(ctx context.Context, s streams, words []string) error {
	set := make(map[string]string)
	fs := flag.NewFlagSet("nsqd", flag.ContinueOnError)
	fs.SetOutput(s.err)
	c := config.DefaultNSQD()
	for _, f := range c.Fields() {
		fs.Var(&setting{field: f, set: set}, f.Name, f.Help)
	}
	for name, noValue := range nsqdPassedOver {
		fs.Var(ignored{noValue}, name, "accepted for nsqd's sake, without effect")
	}
	showVersion := fs.Bool("version", false, "print the version")
	file := fs.String("config", "", "path of nsqd's configuration file")
	if err := fs.Parse(words); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return &exitError{exitUsage, errSilent}
	}
	if *showVersion {
		_, err := fmt.Fprintf(s.out, "nsqd v%s (tidings %s)\n", version.NSQ, version.String())
		return err
	}
	if fs.NArg() > 0 {
		return usagef("nsqd takes no argument: %q", fs.Arg(0))
	}
	cfg, warnings, err := config.Load(config.Source{File: *file, Environ: os.Environ(), Flags: set, NSQD: true})
	if err != nil {
		return usagef("%w", err)
	}
	logger, err := newLogger(s.err, cfg)
	if err != nil {
		return usagef("%w", err)
	}
	for _, w := range warnings {
		logger.Warn(w)
	}
	warnPassedOver(logger.Logger, fs)
	if err := nsqdDataPath(&cfg); err != nil {
		return err
	}
	return runNode(ctx, s, cfg, func(n *node.Node) {
		logger.Info("open to every host, without TLS or authorization, as nsqd is", "tcp", n.Addrs().TCP, "http", n.Addrs().HTTP)
	})
}

func warnPassedOver(logger *slog.Logger, fs *flag.FlagSet) {
	var names []string
	fs.Visit(func(f *flag.Flag) {
		if _, ok := f.Value.(ignored); ok && f.Name != "verbose" {
			names = append(names, "--"+f.Name)
		}
	})
	if len(names) > 0 {
		sort.Strings(names)
		logger.Warn("flags accepted for nsqd's sake have no effect", "flags", strings.Join(names, " "))
	}
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
	return failf(exitConflict, "%s holds an nsqd's data (nsqd.dat), which this node would not deliver: drain it with nsqd first, or start with --ignore-nsqd-data to leave it there", base)
}

func newConfig(s streams) *cobra.Command {
	return parent("config", "Write or check a configuration file", newConfigInit(s), newConfigCheck(s))
}

func newConfigInit(s streams) *cobra.Command {
	return &cobra.Command{
		Use: "init", Short: "Print a configuration file with every setting, its default and what it means", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			c := config.Default()
			for _, f := range c.Fields() {
				value := f.String()
				if f.Type != "bool" && f.Type != "int" {
					value = fmt.Sprintf("%q", value)
				}
				if _, err := fmt.Fprintf(s.out, "# %s\n#%s = %s\n\n", f.Help, f.Key(), value); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newConfigCheck(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check FILE", Short: "Check a configuration file", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			cfg, _, err := config.Load(config.Source{File: a[0]})
			if err != nil {
				return usagef("%w", err)
			}
			if !asJSON {
				fmt.Fprintf(s.err, "%s is good\n", a[0])
				return nil
			}
			out := make(map[string]string)
			for _, f := range cfg.Fields() {
				out[f.Key()] = f.String()
			}
			return printJSON(s.out, out)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
