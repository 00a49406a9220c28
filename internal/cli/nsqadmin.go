package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/front/nsqadmin"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/version"
)

func newNSQAdmin(s streams) *cobra.Command {
	return &cobra.Command{
		Use: "nsqadmin [FLAGS]", Short: "Run nsqadmin's API under its flag names and defaults",
		Long: `Run nsqadmin's JSON API over nsqlookupds or nsqds, real ones or nodes of ours. It
takes nsqadmin's flags, its configuration file and its defaults, as it also does
when called by the name nsqadmin (a symlink will do). Name the nsqlookupds to ask,
or the nsqds where there is no nsqlookupd. A node (` + "`tidings serve`" + `) serves the
same API for itself and its cluster, at 127.0.0.1:4171.
` + "`tidings nsqadmin --help`" + ` lists the flags.`,
		Example: `  tidings nsqadmin --lookupd-http-address=127.0.0.1:4161
  tidings nsqadmin --nsqd-http-address=10.0.0.5:4151 --nsqd-http-address=10.0.0.6:4151
  tidings nsqadmin --lookupd-http-address=127.0.0.1:4161 --admin-user=alice --acl-http-header=X-Remote-User`,
		DisableFlagParsing: true, // nsqadmin takes -x v, -x=v and --x v alike
		RunE: func(cmd *cobra.Command, a []string) error {
			return runNSQAdmin(cmd.Context(), s, a)
		},
	}
}

func runNSQAdmin(ctx context.Context, s streams, words []string) error {
	set := make(map[string]string)
	fs := nsqadminFlags(set)
	file, done, err := parseNSQ(s, "nsqadmin", fs, words)
	if done || err != nil {
		return err
	}
	cfg, warnings, err := config.LoadNSQAdmin(config.Source{File: file, Environ: os.Environ(), Flags: set})
	if err != nil {
		return settingsError(err)
	}
	logger := newLogger(s.err, config.Config{LogLevel: cfg.LogLevel, LogFormat: cfg.LogFormat})
	logWarnings(logger, "nsqadmin", fs, warnings)
	return administer(ctx, logger, &cfg)
}

// nsqadminFlags knows every flag of nsqadmin's; set notes those of the settings.
func nsqadminFlags(set map[string]string) *flag.FlagSet {
	fs := flag.NewFlagSet("nsqadmin", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	c := config.DefaultNSQAdmin()
	for _, f := range c.Fields() {
		fs.Var(&setting{field: f, set: set}, f.Name, f.Help)
	}
	for name, noValue := range map[string]bool{"verbose": true, "log-prefix": false, "dev-static-dir": false} {
		fs.Var(&ignored{noValue: noValue}, name, "nsqadmin's; accepted without effect")
	}
	return fs
}

// administer serves until ctx ends.
func administer(ctx context.Context, logger leveledLogger, c *config.NSQAdmin) error {
	o := nsqadmin.Options{
		LookupdHTTPAddresses: c.LookupdHTTPAddresses, NSQDHTTPAddresses: c.NSQDHTTPAddresses,
		BasePath: c.BasePath, Version: version.String(),
		ProxyGraphite: c.ProxyGraphite, StatsdInterval: c.StatsdInterval,
		ConnectTimeout: c.HTTPConnectTimeout, RequestTimeout: c.HTTPRequestTimeout,
		// by address, so that nobody who registers with an nsqlookupd is meant
		Passes:    func(addr string) bool { return slices.Contains(c.NSQDHTTPAddresses, addr) },
		ACLHeader: c.ACLHTTPHeader, AdminUsers: c.AdminUsers, NotificationURL: c.NotificationHTTPEndpoint,
		Settings: nsqadminSettings(c), Logger: logger.Logger, LogLevel: logger.level,
	}
	var err error
	if o.ConfigFrom, err = c.ConfigFrom(); err != nil {
		return err
	}
	if c.GraphiteURL != "" {
		if o.GraphiteURL, err = url.Parse(c.GraphiteURL); err != nil {
			return fmt.Errorf("--graphite-url: %w", err)
		}
	}
	if o.TLS, err = clientTLS(c); err != nil {
		return err
	}
	if o.Listener, err = net.Listen("tcp", c.HTTPAddress); err != nil {
		return fmt.Errorf("listen on %s: %w; choose another address with --http-address", c.HTTPAddress, err)
	}
	at := o.Listener.Addr().String()
	logger.Info("listening", "http", at, "lookupd", c.LookupdHTTPAddresses, "nsqd", c.NSQDHTTPAddresses)
	if len(c.AdminUsers) == 0 {
		saysOpen(logger.Logger, &config.Config{}, node.Addrs{HTTP: at})
	}
	return nsqadmin.New(o).Run(ctx)
}

// clientTLS is how servers are asked that insist on TLS.
func clientTLS(c *config.NSQAdmin) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.HTTPTLSInsecureSkipVerify}
	if c.HTTPTLSCert != "" {
		cert, err := tls.LoadX509KeyPair(c.HTTPTLSCert, c.HTTPTLSKey)
		if err != nil {
			return nil, fmt.Errorf("load --http-client-tls-cert and --http-client-tls-key: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	if c.HTTPTLSRootCAFile != "" {
		pem, err := os.ReadFile(c.HTTPTLSRootCAFile)
		if err != nil {
			return nil, fmt.Errorf("load --http-client-tls-root-ca-file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("load --http-client-tls-root-ca-file: no certificate in %s", c.HTTPTLSRootCAFile)
		}
	}
	return t, nil
}

// nsqadminSettings are the answers of GET /config, as nsqadmin gives them: a
// duration is a number of nanoseconds.
func nsqadminSettings(c *config.NSQAdmin) map[string]any {
	out := map[string]any{"log_prefix": "[nsqadmin] ", "dev_static_dir": ""}
	for _, f := range c.Fields() {
		out[f.Key()] = f.Value()
	}
	delete(out, "log_format") // not one of nsqadmin's
	out["statsd_interval"] = c.StatsdInterval
	out["http_client_connect_timeout"] = c.HTTPConnectTimeout
	out["http_client_request_timeout"] = c.HTTPRequestTimeout
	return out
}
