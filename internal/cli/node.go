package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
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
			Name: field.Name, Usage: field.Help, DefValue: field.String(),
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
// error can name the flag as it was written. A list grows with every flag.
func (v *setting) Set(text string) error {
	if before, again := v.set[v.field.Name]; again && v.field.Type == "list" {
		text = before + "," + text
	}
	if err := v.field.Set(text); err != nil {
		return err
	}
	v.set[v.field.Name] = text
	return nil
}

func newServe(s streams) *cobra.Command {
	var file string
	var asJSON bool
	var set map[string]string
	cmd := &cobra.Command{
		Use: "serve", Short: "Run a node", Args: args(cobra.NoArgs),
		Long: `Run a node. Every setting has one name: the flag --data-path is TIDINGS_DATA_PATH
in the environment and data_path in the TOML file given with --config. A flag
wins over the environment, the environment over the file.

The node runs until SIGINT or SIGTERM, then lets consumers finish what they hold
for --drain-timeout. With --json it prints one line on standard output when it
serves: its addresses and its data folder.

With --seeds it is one of several: nodes that name the same 1, 3 or 5 seeds form
a cluster, once all of them have been started, and every topic lives on a
majority of disks. Each needs a certificate, as ` + "`tidings cluster cert`" + ` makes
them; ` + "`tidings cluster status`" + ` shows what a node waits for.`,
		Example: `  tidings serve
  tidings serve -c /etc/tidings.toml
  tidings serve --node n1 --seeds n1=10.0.0.1:4190,n2=10.0.0.2:4190,n3=10.0.0.3:4190 --cluster-address 10.0.0.1:4190 \
    --cluster-ca certs/ca.crt --cluster-cert certs/n1.crt --cluster-key certs/n1.key
  tidings config init > tidings.toml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), s, config.Source{File: file, Environ: os.Environ(), Flags: set}, served(s, asJSON, nil))
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "TOML file with settings")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the addresses as JSON when the node serves")
	set = settingFlags(cmd.Flags(), config.Default())
	return cmd
}

// devDefaults keep a developer's data folder small, its start quick and its
// terminal quiet.
func devDefaults() map[string]string {
	return map[string]string{"wal-segment-size": "16MiB", "checkpoint-size": "16MiB", "log-level": "warn"}
}

func newDev(s streams) *cobra.Command {
	var asJSON bool
	var set map[string]string
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a durable node on this machine, ready for a first message", Args: args(cobra.NoArgs),
		Long: `Run a durable node on this machine. It needs no file and no other service, keeps
its data in ./tidings-data, and says what to type next. It takes the settings of
` + "`tidings serve`" + `, and logs warnings only.`,
		Example: `  tidings dev
  tidings dev --tcp-address 127.0.0.1:5150 --http-address 127.0.0.1:5151 --admin-address ''`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			src := config.Source{Defaults: devDefaults(), Environ: os.Environ(), Flags: set}
			return serve(cmd.Context(), s, src, served(s, asJSON, banner))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the addresses as JSON when the node serves")
	cfg, _, err := config.Load(config.Source{Defaults: devDefaults()})
	if err != nil {
		panic("cli: " + err.Error()) // constants
	}
	set = settingFlags(cmd.Flags(), cfg)
	return cmd
}

// readiness is told when a node serves.
type readiness func(config.Config, node.Addrs) error

// served tells the user that the node serves: data for programs, talk for
// people.
func served(s streams, asJSON bool, talk func(io.Writer, config.Config, node.Addrs)) readiness {
	return func(cfg config.Config, a node.Addrs) error {
		if talk != nil {
			talk(s.err, cfg, a)
		}
		if !asJSON {
			return nil
		}
		where := map[string]string{
			"tcp_address": a.TCP, "http_address": a.HTTP, "admin_address": a.Admin, "data_path": cfg.DataPath,
			"lookup_tcp_address": a.LookupTCP, "lookup_http_address": a.LookupHTTP, "nsqadmin_http_address": a.NSQAdmin,
		}
		if a.HTTPS != "" {
			where["https_address"] = a.HTTPS
		}
		return printJSONLine(s.out, where)
	}
}

// banner says what listens, and what to type next.
func banner(w io.Writer, cfg config.Config, a node.Addrs) {
	http := local(a.HTTP)
	at := ""
	if http != defaultServer {
		at = " --server " + http
	}
	more := ""
	if a.LookupHTTP != "" {
		more = fmt.Sprintf("  lookup     http://%s\n", local(a.LookupHTTP))
	}
	if a.NSQAdmin != "" {
		more += fmt.Sprintf("  nsqadmin   http://%s\n", local(a.NSQAdmin))
	}
	if a.Admin != "" {
		more += fmt.Sprintf("  console    http://%s/\n", local(a.Admin))
	}
	self := invocation()
	fmt.Fprintf(w, `tidings %s, one durable node; data in %s

  NSQ TCP    %s
  NSQ HTTP   http://%s
%s
Publish a message, then consume it, in another terminal:

  curl -d 'hello' 'http://%s/pub?topic=orders'
  %s pub orders 'hello'%s
  %s sub orders -C audit --follow%s

Ctrl-C stops the node; what it acknowledged stays.
`, version.String(), cfg.DataPath, local(a.TCP), http, more, http, self, at, self, at)
}

// local is the address as this machine reaches it.
func local(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// invocation is how a user can call this program from the same folder: by its
// name if that is on the path, by go run in a clone, else by where it lies.
func invocation() string {
	const name, source = "tidings", "./cmd/tidings"
	self, err := os.Executable()
	if err != nil {
		return name
	}
	if found, err := exec.LookPath(name); err == nil && sameFile(found, self) {
		return name
	}
	if strings.Contains(filepath.ToSlash(self), "/go-build") {
		if _, err := os.Stat(source); err == nil {
			return "go run " + source
		}
	}
	if dir, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(dir, self); err == nil && filepath.IsLocal(rel) {
			self = "." + string(filepath.Separator) + rel
		}
	}
	if strings.ContainsAny(self, " '\"$\\") {
		return "'" + self + "'"
	}
	return self
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// serve loads the settings, builds a node and lives as long as it does.
func serve(ctx context.Context, s streams, src config.Source, ready readiness) error {
	cfg, warnings, err := config.Load(src)
	if err != nil {
		return settingsError(err)
	}
	logger := newLogger(s.err, cfg)
	for _, w := range warnings {
		logger.Warn(w)
	}
	return runNode(ctx, logger, cfg, src, ready)
}

// runNode builds a node and lives as long as it does. The node stops when its
// readiness can't be told. src is what the settings came from.
func runNode(ctx context.Context, logger leveledLogger, cfg config.Config, src config.Source, ready readiness) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// Half of Go's default. The heap of a busy node is mostly message bodies on
	// their way to files: with the default it held 80 MB for a backlog that
	// needs 30.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if err := limitMemory(logger.Logger, cfg, os.DirFS("/"), debug.SetMemoryLimit); err != nil {
		return err
	}
	n, err := node.New(node.Options{
		Config: cfg, FS: vfs.Default(), Logger: logger.Logger, LogLevel: logger.level,
		Origins: config.Origins(src), ConfigFile: src.File,
	})
	if _, ok := errors.AsType[*node.SettingError](err); ok {
		return usagef("%w", err)
	}
	if err != nil {
		return err
	}
	var unheard error
	err = n.Run(ctx, func() {
		if unheard = ready(cfg, n.Addrs()); unheard != nil {
			stop(unheard)
		}
	})
	return errors.Join(err, unheard)
}

type leveledLogger struct {
	*slog.Logger
	level *slog.LevelVar
}

// newLogger writes text on a terminal and JSON elsewhere, unless told.
func newLogger(w io.Writer, cfg config.Config) leveledLogger {
	level := new(slog.LevelVar)
	switch strings.ToLower(cfg.LogLevel) {
	case "debug":
		level.Set(slog.LevelDebug)
	case "warn":
		level.Set(slog.LevelWarn)
	case "error", "fatal": // nsqd's name for "hardly anything"
		level.Set(slog.LevelError)
	}
	o := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" || (cfg.LogFormat == "auto" && !isTerminal(w)) {
		return leveledLogger{slog.New(slog.NewJSONHandler(w, o)), level}
	}
	return leveledLogger{slog.New(slog.NewTextHandler(w, o)), level}
}
