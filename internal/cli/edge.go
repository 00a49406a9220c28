package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/edge"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/version"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

func newEdge(s streams) *cobra.Command {
	var file string
	var asJSON bool
	set := make(map[string]string)
	cmd := &cobra.Command{
		Use: "edge", Short: "Take publishes beside a publisher, and forward them to a node or cluster", Args: args(cobra.NoArgs),
		Long: `Take publishes beside a publisher, by NSQ's TCP protocol and nsqd's HTTP API, and
forward them to a node or a cluster: in order for each topic, and once. A publish
is answered when it is on the edge's disk, whether or not a node can be reached;
what can't be forwarded stays in the spool, also over restarts and crashes. When
the spool holds --spool-size bytes, publishes are refused. Nothing is consumed at
an edge.

Every setting has one name, as with ` + "`tidings serve`" + `: flag, environment
(TIDINGS_UPSTREAM) and TOML file (upstream). A secret for nodes with AUTH is in
TIDINGS_SECRET; nodes of https:// are trusted by the authorities of TIDINGS_CA,
else the system's. The settings of TLS and AUTH are for publishers, as with a node.
With --json it prints one line on standard output when it
serves: its addresses and its folder.`,
		Example: `  tidings edge --upstream 10.0.0.5:4151,10.0.0.6:4151,10.0.0.7:4151
  tidings edge --upstream https://orders.example.com:4152 --data-path /var/lib/tidings-edge --spool-size 20GiB`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runEdge(cmd.Context(), s, config.Source{File: file, Environ: os.Environ(), Flags: set}, asJSON)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "TOML file with settings")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the addresses as JSON when the edge serves")
	c := config.DefaultEdge()
	for _, f := range c.Fields() {
		cmd.Flags().AddFlag(&pflag.Flag{Name: f.Name, Usage: f.Help, DefValue: f.String(), Value: &setting{field: f, set: set}, NoOptDefVal: noOptDefault(f)})
	}
	return cmd
}

// runEdge loads the settings, builds an edge and lives as long as it does.
func runEdge(ctx context.Context, s streams, src config.Source, asJSON bool) error {
	cfg, warnings, err := config.LoadEdge(src)
	if err != nil {
		return settingsError(err)
	}
	logger := newLogger(s.err, config.Config{LogLevel: cfg.LogLevel, LogFormat: cfg.LogFormat})
	for _, w := range warnings {
		logger.Warn(w)
	}
	o, at, err := edgeOptions(&cfg, logger)
	if err != nil {
		return err
	}
	e, err := edge.New(o)
	if err != nil {
		closeAll(o.TCP, o.HTTP, o.HTTPS, o.Admin)
		return edgeError(&cfg, err)
	}
	logger.Info("listening", "tcp", at.TCP, "http", at.HTTP, "https", at.HTTPS, "admin", at.Admin, "upstream", cfg.Upstream)
	clients := cfg.Clients()
	saysOpen(logger.Logger, &clients, at)
	if isTerminal(s.err) {
		edgeBanner(s.err, &cfg, at)
	}
	if asJSON {
		where := map[string]string{"tcp_address": at.TCP, "http_address": at.HTTP, "admin_address": at.Admin, "data_path": cfg.DataPath}
		if at.HTTPS != "" {
			where["https_address"] = at.HTTPS
		}
		if err := printJSONLine(s.out, where); err != nil {
			return err
		}
	}
	return e.Run(ctx)
}

// edgeOptions binds the sockets, and reads what the environment says of upstream.
func edgeOptions(c *config.Edge, logger leveledLogger) (o edge.Options, at node.Addrs, err error) {
	o = edge.Options{
		Upstream: c.Upstream, FS: vfs.Default(), Dir: filepath.ToSlash(c.DataPath), SpoolSize: int64(c.SpoolSize), DiskReserve: int64(c.DiskReserve),
		MaxMsgSize: int64(c.MaxMsgSize), MaxBodySize: int64(c.MaxBodySize), MaxDeferTimeout: c.MaxDeferTimeout,
		Version: version.NSQ, Logger: logger.Logger, LogLevel: logger.level,
	}
	secured := slices.IndexFunc(c.Upstream, func(a string) bool { return strings.HasPrefix(a, "https://") })
	from := new(namedContext).sources(false) // the environment's: a user's contexts are not a server's
	a, err := from.access(c.Upstream[max(secured, 0)])
	if err != nil {
		return o, at, err
	}
	o.Secret, o.TLS = a.secret, a.tls
	clients := c.Clients()
	secure, err := node.NewClientSecurity(&clients, logger.Logger)
	if err != nil {
		return o, at, err
	}
	o.ClientTLS, o.TLSRequired, o.Auth, o.HTTPAuth = secure.TLS, secure.Required, secure.Auth, c.HTTPAuth
	for _, l := range []struct {
		flag, addr string
		to         *net.Listener
		is         *string
	}{
		{"tcp-address", c.TCPAddress, &o.TCP, &at.TCP},
		{"http-address", c.HTTPAddress, &o.HTTP, &at.HTTP},
		{"https-address", c.HTTPSAddress, &o.HTTPS, &at.HTTPS},
		{"admin-address", c.AdminAddress, &o.Admin, &at.Admin},
	} {
		if l.addr == "" || l.to == &o.HTTPS && o.ClientTLS == nil {
			continue
		}
		if *l.to, err = net.Listen("tcp", l.addr); err != nil {
			closeAll(o.TCP, o.HTTP, o.HTTPS)
			return o, at, fmt.Errorf("listen on %s: %w; choose another address with --%s", l.addr, err, l.flag)
		}
		*l.is = (*l.to).Addr().String()
	}
	return o, at, nil
}

// closeAll closes the listeners that are there.
func closeAll(listeners ...net.Listener) {
	for _, l := range listeners {
		if l != nil {
			l.Close()
		}
	}
}

// edgeError says how to go on when the spool can't be used.
func edgeError(c *config.Edge, err error) error {
	if errors.Is(err, vfs.ErrLocked) {
		return failf(exitConflict, "%w; stop that, or choose another folder with --data-path", err)
	}
	if damage, ok := errors.AsType[*wal.CorruptError](err); ok {
		return fmt.Errorf("the spool in %s is damaged: %w\nto go on without it, move the folder away: the edge begins a new one, and what was not forwarded is lost", c.DataPath, damage)
	}
	return err
}

// edgeBanner says what listens, and what to type next.
func edgeBanner(w io.Writer, c *config.Edge, a node.Addrs) {
	more := ""
	if a.HTTPS != "" {
		more = fmt.Sprintf("  NSQ HTTPS  https://%s\n", local(a.HTTPS))
	}
	if a.Admin != "" {
		more += fmt.Sprintf("  metrics    http://%s/metrics\n", local(a.Admin))
	}
	fmt.Fprintf(w, `tidings %s, an edge; spool of up to %s in %s

  NSQ TCP    %s
  NSQ HTTP   http://%s
%s  upstream   %s

Publish here, consume there:

  curl -d 'hello' 'http://%s/pub?topic=orders'

Ctrl-C stops the edge; what is in the spool stays for the next time.
`, version.String(), c.SpoolSize, c.DataPath, local(a.TCP), local(a.HTTP), more, strings.Join(c.Upstream, ", "), local(a.HTTP))
}
