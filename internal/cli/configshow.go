package cli

import (
	"context"
	"maps"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/front/admin"
)

// originRuntime is where a setting comes from that was changed while the node
// runs.
const originRuntime = "runtime"

// configShow is `tidings config show`.
type configShow struct {
	srv                          *server
	file                         string
	set                          map[string]string // settings on the command line
	origin, changed, start, nsqd bool
	json                         bool
}

func newConfigShow(s streams) *cobra.Command {
	var o configShow
	cmd := &cobra.Command{
		Use: "show [NAME...]", Short: "Show the settings that a node has, or would start with", Args: args(cobra.ArbitraryArgs),
		Long: `Show the settings that the node at --admin has. With -c, settings as flags, or
--start, show those that ` + "`tidings serve`" + ` would start with: the flags', the
environment's, the file's and the defaults. --origin says where each comes from.

NAME is a setting, a part of its name, or a pattern with * and ?; dashes and
underscores are the same. Passwords are not shown.`,
		Example: `  tidings config show --changed --origin
  tidings config show 'tls*' --admin 10.0.0.2:4180
  tidings config show -c /etc/tidings.toml --origin
  tidings config show --start --max-msg-size 2MiB max-msg-size --json`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return settingKeys(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, names []string) error { return o.run(cmd, s, names) },
	}
	o.srv = adminFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.origin, "origin", false, "show where each setting comes from")
	f.BoolVar(&o.changed, "changed", false, "leave out what is at its default")
	f.BoolVar(&o.start, "start", false, "show what a start would use, not what a node has")
	f.BoolVar(&o.nsqd, "nsqd", false, "with --start or -c: a start under the name nsqd, with its file and its defaults")
	f.StringVarP(&o.file, "config", "c", "", "TOML file with settings, for a start")
	jsonFlag(cmd, &o.json)
	o.set = settingFlags(f, config.Default())
	return cmd
}

func (o *configShow) run(cmd *cobra.Command, s streams, names []string) error {
	offline := o.start || o.nsqd || o.file != "" || len(o.set) > 0
	if offline {
		for _, flag := range []string{"admin", "context", "timeout"} {
			if cmd.Flags().Changed(flag) {
				return usagef("--%s asks a node, and --start, --nsqd, -c and settings are about a start: give one of both", flag)
			}
		}
	}
	c, err := o.settings(cmd.Context(), s, offline)
	if err != nil {
		return err
	}
	if c.Settings, err = selected(c.Settings, names); err != nil {
		return err
	}
	if o.changed {
		c.Settings = slices.DeleteFunc(c.Settings, func(x admin.Setting) bool { return x.Origin == config.OriginDefault })
	}
	if o.json {
		return printJSON(s.out, c)
	}
	rows := make([][]string, 0, len(c.Settings))
	for i := range c.Settings {
		x := &c.Settings[i]
		row := []string{x.Key, orDash(x.Value)}
		if o.origin {
			row = append(row, originText(x, c.File))
		}
		rows = append(rows, row)
	}
	head := "SETTING VALUE"
	if o.origin {
		head += " ORIGIN"
	}
	return table(s.out, head, rows)
}

// originText names the file, the variable or the flag that a setting is from.
func originText(s *admin.Setting, file string) string {
	switch s.Origin {
	case config.OriginFile:
		return strings.TrimSpace(s.Origin + " " + file)
	case config.OriginEnvironment:
		return s.Origin + " " + s.Env
	case config.OriginFlag:
		return s.Origin + " " + s.Flag
	}
	return s.Origin
}

// settings are the node's, or those of a start.
func (o *configShow) settings(ctx context.Context, s streams, offline bool) (c admin.Config, err error) {
	if offline {
		return o.ofStart(s)
	}
	if err := o.srv.admin(ctx, http.MethodGet, "/api/v1/config", nil, &c); err != nil {
		return c, err
	}
	var now admin.LogLevel
	if err := o.srv.admin(ctx, http.MethodGet, "/api/v1/log-level", nil, &now); err != nil {
		return c, err
	}
	for i := range c.Settings {
		x := &c.Settings[i]
		started := strings.ToLower(x.Value)
		if started == "fatal" { // nsqd's name
			started = "error"
		}
		if x.Key == "log_level" && started != now.Level {
			x.Value, x.Origin = now.Level, originRuntime
		}
	}
	return c, nil
}

func (o *configShow) ofStart(s streams) (c admin.Config, err error) {
	src := config.Source{File: o.file, Environ: os.Environ(), Flags: o.set, NSQD: o.nsqd}
	cfg, warnings, err := config.Load(src)
	if err != nil {
		return c, settingsError(err)
	}
	logger := newLogger(s.err, config.Default())
	for _, w := range warnings {
		logger.Warn(w)
	}
	c = admin.Config{File: o.file, Settings: []admin.Setting{}}
	fields := cfg.Fields()
	if o.nsqd {
		fields = cfg.NSQDFields()
	}
	for _, d := range config.Describe(fields, config.Origins(src)) {
		c.Settings = append(c.Settings, admin.Setting(d))
	}
	return c, nil
}

// selected are the settings that the names mean; all without a name. A name that
// means none is an error.
func selected(all []admin.Setting, names []string) ([]admin.Setting, error) {
	if len(names) == 0 {
		return all, nil
	}
	keep := make(map[string]bool)
	for _, name := range names {
		matched, err := matching(all, name)
		if err != nil {
			return nil, err
		}
		maps.Copy(keep, matched)
	}
	return slices.DeleteFunc(all, func(s admin.Setting) bool { return !keep[s.Key] }), nil
}

// matching are the keys of the settings that a name means.
func matching(all []admin.Setting, name string) (map[string]bool, error) {
	want := strings.ReplaceAll(strings.TrimLeft(strings.ToLower(name), "-"), "-", "_")
	pattern := strings.ContainsAny(want, "*?[")
	if _, err := path.Match(want, ""); err != nil || want == "" {
		return nil, usagef("%q: want a setting, a part of its name, or a pattern such as 'tls*'", name)
	}
	exact, part := make(map[string]bool), make(map[string]bool)
	var flags []string
	for i := range all {
		s := &all[i]
		flag := strings.ReplaceAll(strings.TrimPrefix(s.Flag, "--"), "-", "_")
		flags = append(flags, strings.TrimPrefix(s.Flag, "--"))
		matches := func(text string) bool {
			ok, _ := path.Match(want, text) // checked above
			return ok
		}
		switch {
		case matches(s.Key) || matches(flag):
			exact[s.Key] = true
		case !pattern && (strings.Contains(s.Key, want) || strings.Contains(flag, want)):
			part[s.Key] = true
		}
	}
	switch {
	case len(exact) > 0:
		return exact, nil
	case len(part) > 0:
		return part, nil
	}
	hint := "`tidings config show` lists them"
	if near := config.Nearest(strings.ReplaceAll(want, "_", "-"), flags); near != "" {
		hint = "did you mean " + near + "?"
	}
	return nil, failf(exitNotFound, "no setting is called %s; %s", name, hint)
}

func settingKeys() (keys []string) {
	c := config.Default()
	for _, f := range c.Fields() {
		keys = append(keys, f.Key())
	}
	return keys
}
