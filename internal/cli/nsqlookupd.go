package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/front/lookup"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/version"
)

// lookupdSettings are the settings that an nsqlookupd has; tcp-address and
// http-address are the lookup's own.
var lookupdSettings = []string{
	"tcp-address", "http-address", "broadcast-address", "inactive-producer-timeout", "tombstone-lifetime", "log-level", "log-format",
}

// lookupdDefaults are nsqlookupd's own.
func lookupdDefaults() map[string]string {
	return map[string]string{"tcp-address": "0.0.0.0:4160", "http-address": "0.0.0.0:4161"}
}

func newNSQLookupd(s streams) *cobra.Command {
	return &cobra.Command{
		Use: "nsqlookupd [FLAGS]", Short: "Run a lookup under nsqlookupd's flag names and defaults",
		Long: `Run what nsqds register with and consumers look topics up in. It takes
nsqlookupd's flags, its configuration file and its defaults, as it also does when
called by the name nsqlookupd (a symlink will do). It keeps nothing on disk. A
node (` + "`tidings serve`" + `) serves the same beside its own topics.
` + "`tidings nsqlookupd --help`" + ` lists the flags.`,
		Example: `  tidings nsqlookupd
  tidings nsqlookupd --tcp-address=10.0.0.5:4160 --http-address=10.0.0.5:4161`,
		DisableFlagParsing: true, // nsqlookupd takes -x v, -x=v and --x v alike
		RunE: func(cmd *cobra.Command, a []string) error {
			return runNSQLookupd(cmd.Context(), s, a)
		},
	}
}

func runNSQLookupd(ctx context.Context, s streams, words []string) error {
	set := make(map[string]string)
	fs, err := lookupdFlags(set)
	if err != nil {
		return err
	}
	src := config.Source{Defaults: lookupdDefaults(), Flags: set}
	cfg, logger, done, err := asNSQ(s, "nsqlookupd", fs, words, src, func(*config.Config) error { return nil })
	if done || err != nil {
		return err
	}
	return lookups(ctx, logger.Logger, &cfg)
}

// lookupdFlags knows every flag of nsqlookupd's; set notes those of the
// settings.
func lookupdFlags(set map[string]string) (*flag.FlagSet, error) {
	fs := flag.NewFlagSet("nsqlookupd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	c, _, err := config.Load(config.Source{Defaults: lookupdDefaults(), NSQD: true})
	if err != nil {
		return nil, err
	}
	byName := make(map[string]config.Field)
	for _, f := range c.Fields() {
		byName[f.Name] = f
	}
	for _, name := range lookupdSettings {
		fs.Var(&setting{field: byName[name], set: set}, name, lookupdHelp(byName[name]))
	}
	for name, noValue := range map[string]bool{"verbose": true, "log-prefix": false} {
		fs.Var(&ignored{noValue: noValue}, name, "nsqlookupd's; accepted without effect")
	}
	return fs, nil
}

// lookupdHelp says what a setting means here.
func lookupdHelp(f config.Field) string {
	switch f.Name {
	case "tcp-address":
		return "address where nsqds register"
	case "http-address":
		return "address for lookups and tools"
	case "broadcast-address":
		return "host name or address by which nsqds reach the HTTP address (default: the host name)"
	}
	return f.Help
}

// lookups serves until ctx ends.
func lookups(ctx context.Context, logger *slog.Logger, c *config.Config) error {
	listen := func(name, addr string) (net.Listener, error) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w; choose another address with --%s", addr, err, name)
		}
		return l, nil
	}
	tcp, err := listen("tcp-address", c.TCPAddress)
	if err != nil {
		return err
	}
	http, err := listen("http-address", c.HTTPAddress)
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	f := lookup.New(lookup.Options{
		TCP: tcp, HTTP: http, Version: version.NSQ, BroadcastAddress: c.BroadcastAddr,
		InactiveTimeout: c.InactiveTimeout, TombstoneLifetime: c.TombstoneLifetime, Logger: logger,
	})
	a := node.Addrs{TCP: tcp.Addr().String(), HTTP: http.Addr().String()}
	logger.Info("listening", "tcp", a.TCP, "http", a.HTTP)
	saysOpen(logger, c, a)
	return f.Run(ctx)
}
