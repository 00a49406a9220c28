package cli

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newContext(s streams) *cobra.Command {
	cmd := parent("context", "Name the nodes and clusters that commands speak to",
		newContextList(s), newContextAdd(s), newContextUse(s), newContextRemove(s), newContextShow(s))
	cmd.Long = `Name the nodes and clusters that commands speak to: addresses, the certificates
to reach them with, and the file of a secret. Contexts are in tidings/contexts.toml
of $XDG_CONFIG_HOME, else of ~/.config.

Commands take what they speak to from, in this order: --server and --admin; the
context that --context names; TIDINGS_SERVER and TIDINGS_ADMIN; the context of
TIDINGS_CONTEXT; the context of ` + "`tidings context use`" + `; the default. The
certificates and the secret of a context go to its own addresses only, and to
those on a command line that has --context.`
	return cmd
}

// jsonContext is a context as --json prints it.
type jsonContext struct {
	Name       string `json:"name"`
	Current    bool   `json:"current"`
	Server     string `json:"server,omitempty"`
	Admin      string `json:"admin,omitempty"`
	CAFile     string `json:"ca_file,omitempty"`
	CertFile   string `json:"cert_file,omitempty"`
	KeyFile    string `json:"key_file,omitempty"`
	SecretFile string `json:"secret_file,omitempty"`
}

// json is the context of that name for --json.
func (f *contextFile) json(name, current string) jsonContext {
	c := f.absolute(name)
	return jsonContext{name, name == current, c.Server, c.Admin, c.CAFile, c.CertFile, c.KeyFile, c.SecretFile}
}

func newContextList(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List the contexts", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			file, err := loadContexts()
			if err != nil {
				return err
			}
			current, _, err := wantedContext("")
			if err != nil {
				return err
			}
			list := make([]jsonContext, 0, len(file.Contexts))
			rows := make([][]string, 0, len(file.Contexts))
			for _, name := range file.names() {
				c := file.json(name, current)
				list = append(list, c)
				mark := "-"
				if c.Current {
					mark = "current"
				}
				rows = append(rows, []string{name, mark, orDash(c.Server), orDash(c.Admin), orDash(c.SecretFile)})
			}
			if asJSON {
				return printJSON(s.out, list)
			}
			return table(s.out, "CONTEXT USE SERVER ADMIN SECRET", rows)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// contextAdd are the flags of `context add`.
type contextAdd struct {
	namedContext

	use, update, json bool
}

func newContextAdd(s streams) *cobra.Command {
	var o contextAdd
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Give a node or cluster a name", Args: args(cobra.ExactArgs(1)),
		Long: `Give a node or cluster a name, by its HTTP address, its admin address or both.
Files are named, not copied: a secret stays where it is. With --update a context
that is there is changed, and what no flag says stays as it is.`,
		Example: `  tidings context add staging --server 10.0.0.5:4151 --admin 10.0.0.5:4180 --use
  tidings context add prod --server https://orders.example.com:4152 --ca-file ca.pem --secret-file ~/.prod-secret
  tidings topic ls --context prod`,
		RunE: func(cmd *cobra.Command, a []string) error { return o.run(cmd, s, a[0]) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.Server, "server", "s", "", "HTTP address of a node, https:// before it for TLS")
	f.StringVar(&o.Admin, "admin", "", "admin address of a node, https:// before it for TLS")
	f.StringVar(&o.CAFile, "ca-file", "", "PEM file with the authorities of the nodes' certificates (default: the system's)")
	f.StringVar(&o.CertFile, "cert-file", "", "PEM file with the certificate that nodes are shown")
	f.StringVar(&o.KeyFile, "key-file", "", "PEM file with its key")
	f.StringVar(&o.SecretFile, "secret-file", "", "file whose first line is what the nodes' auth servers know you by")
	f.BoolVar(&o.use, "use", false, "make it the one that commands use")
	f.BoolVar(&o.update, "update", false, "change a context that is there")
	jsonFlag(cmd, &o.json)
	return cmd
}

func (o *contextAdd) run(cmd *cobra.Command, s streams, name string) error {
	if !contextNames.MatchString(name) {
		return badContextName(name)
	}
	file, err := loadContexts()
	if err != nil {
		return err
	}
	_, there := file.Contexts[name]
	if there && !o.update {
		return failf(exitConflict, "context %s is there already; --update changes it", name)
	}
	c, err := o.merge(cmd, file.absolute(name))
	if err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	file.Contexts[name] = c
	if o.use {
		file.Current = name
	}
	if err := file.save(); err != nil {
		return err
	}
	if o.json {
		return printJSON(s.out, file.json(name, file.Current))
	}
	done, hint := "added", ""
	if there {
		done = "changed"
	}
	if file.Current != name {
		hint = fmt.Sprintf("; `tidings context use %s` makes commands use it", name)
	}
	fmt.Fprintf(s.err, "%s context %s%s\n", done, name, hint)
	return nil
}

// merge is the context with what flags say of it.
func (o *contextAdd) merge(cmd *cobra.Command, c namedContext) (namedContext, error) {
	for _, x := range []struct {
		flag     string
		from, to *string
		path     bool
	}{
		{"server", &o.Server, &c.Server, false},
		{"admin", &o.Admin, &c.Admin, false},
		{"ca-file", &o.CAFile, &c.CAFile, true},
		{"cert-file", &o.CertFile, &c.CertFile, true},
		{"key-file", &o.KeyFile, &c.KeyFile, true},
		{"secret-file", &o.SecretFile, &c.SecretFile, true},
	} {
		if !cmd.Flags().Changed(x.flag) {
			continue
		}
		if *x.to = *x.from; x.path && *x.to != "" {
			abs, err := filepath.Abs(*x.to)
			if err != nil {
				return c, fmt.Errorf("--%s: %w", x.flag, err)
			}
			*x.to = abs
		}
	}
	return c, nil
}

// check refuses what no command could use.
func (c *namedContext) check() error {
	if c.Server == "" && c.Admin == "" {
		return usagef("a context needs an address: give --server, --admin or both")
	}
	for _, srv := range []*server{{flag: "server", port: defaultPort, addr: c.Server}, {flag: "admin", port: defaultAdminPort, addr: c.Admin}} {
		if srv.addr == "" {
			continue
		}
		if _, err := srv.host(); err != nil {
			return err
		}
	}
	from := c.sources(true)
	// As for TLS, so that files are looked at which are for later.
	_, err := from.access("https://")
	return err
}

func newContextUse(s streams) *cobra.Command {
	var asJSON, none bool
	cmd := &cobra.Command{
		Use: "use NAME", Short: "Choose the context that commands use", Args: args(func(cmd *cobra.Command, a []string) error {
			if none {
				return cobra.NoArgs(cmd, a)
			}
			return cobra.ExactArgs(1)(cmd, a)
		}),
		Example: `  tidings context use prod
  tidings context use --none`,
		ValidArgsFunction: completeContexts,
		RunE: func(_ *cobra.Command, a []string) error {
			file, err := loadContexts()
			if err != nil {
				return err
			}
			name := ""
			if !none {
				name = a[0]
				if _, err := file.get(name); err != nil {
					return err
				}
			}
			file.Current = name
			if err := file.save(); err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, map[string]string{"current": name})
			}
			if none {
				fmt.Fprintln(s.err, "commands use no context")
				return nil
			}
			fmt.Fprintf(s.err, "commands use context %s\n", name)
			return nil
		},
	}
	cmd.Flags().BoolVar(&none, "none", false, "use none")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newContextRemove(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "Forget a context; the files that it names stay", Args: args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeContexts,
		RunE: func(_ *cobra.Command, a []string) error {
			file, err := loadContexts()
			if err != nil {
				return err
			}
			if _, err := file.get(a[0]); err != nil {
				return err
			}
			delete(file.Contexts, a[0])
			more := ""
			if file.Current == a[0] {
				file.Current, more = "", "; commands use no context now"
			}
			if err := file.save(); err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, map[string]string{"name": a[0], "done": "removed"})
			}
			fmt.Fprintf(s.err, "removed context %s%s\n", a[0], more)
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// shownSource is something that commands reach nodes with, and where it comes
// from. Of a secret the value is the file or the variable that holds it.
type shownSource struct {
	Value  string `json:"value,omitempty"`
	Origin string `json:"origin"` // flag, environment, context, default, or none
}

// shownContext is what `context show` prints.
type shownContext struct {
	Context string      `json:"context"`
	Origin  string      `json:"context_origin"` // flag, environment, file or none
	Server  shownSource `json:"server"`
	Admin   shownSource `json:"admin"`
	CA      shownSource `json:"ca"`
	Cert    shownSource `json:"cert"`
	Key     shownSource `json:"key"`
	Secret  shownSource `json:"secret"`
}

func newContextShow(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show [NAME]", Short: "Show what commands speak to, and why", Args: args(cobra.MaximumNArgs(1)),
		Long: `Show what commands speak to now, and where each part comes from; with NAME, what
they would speak to with --context NAME. A secret is never shown, only where it is.`,
		ValidArgsFunction: completeContexts,
		RunE: func(cmd *cobra.Command, a []string) error {
			name := ""
			if len(a) > 0 {
				name = a[0]
			}
			out, err := showContext(cmd, name)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, out)
			}
			rows := [][]string{{"context", orDash(out.Context), out.Origin}}
			for _, r := range []struct {
				name string
				shownSource
			}{{"server", out.Server}, {"admin", out.Admin}, {"ca", out.CA}, {"cert", out.Cert}, {"key", out.Key}, {"secret", out.Secret}} {
				rows = append(rows, []string{r.name, orDash(r.Value), r.Origin})
			}
			return table(s.out, "WHAT VALUE ORIGIN", rows)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// showContext finds out what commands speak to; named is what --context would
// say.
func showContext(cmd *cobra.Command, named string) (out shownContext, err error) {
	name, explicit, err := wantedContext(named)
	if err != nil {
		return out, err
	}
	out.Context, out.Origin = name, contextOrigin(name, explicit)
	c, err := contextNamed(name)
	if err != nil {
		return out, err
	}
	srv := &server{flags: cmd.Flags(), wanted: &named}
	at := func(srv *server, inContext string) (shownSource, error) {
		if name != "" && inContext == "" && (explicit || srv.fromEnv() == "") {
			return shownSource{Origin: "none"}, nil
		}
		err := srv.find()
		return shownSource{srv.addr, srv.origin}, err
	}
	http := srv.serverBeside()
	if out.Server, err = at(http, c.Server); err != nil {
		return out, err
	}
	admin := srv.adminBeside()
	if out.Admin, err = at(admin, c.Admin); err != nil {
		return out, err
	}
	from := http.from
	if http.origin == "" { // no HTTP address: what goes with the other
		from = admin.from
	}
	out.CA, out.Cert, out.Key = from.ca.shown(false), from.cert.shown(false), from.key.shown(false)
	out.Secret = from.secret.shown(true)
	return out, nil
}

func contextOrigin(name string, explicit bool) string {
	switch {
	case name == "":
		return "none"
	case explicit:
		return fromFlag
	case name == envContextValue():
		return fromEnvironment
	}
	return "file"
}

// shown is the source without what is secret.
func (s source) shown(secret bool) shownSource {
	switch {
	case s.origin == "":
		return shownSource{Origin: "none"}
	case secret && s.origin == fromEnvironment:
		return shownSource{s.where, s.origin}
	}
	return shownSource{s.value, s.origin}
}
