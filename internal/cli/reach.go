package cli

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// Environment of the command line, beside that of secrets (access.go).
const (
	envServer  = "TIDINGS_SERVER"
	envAdmin   = "TIDINGS_ADMIN"
	envContext = "TIDINGS_CONTEXT"
)

// Where an address or a secret comes from, as `tidings context show` names it.
const (
	fromFlag        = "flag"
	fromEnvironment = "environment"
	fromContext     = "context"
	fromDefault     = "default"
)

// server is one of a node's HTTP addresses as the commands use it. Which node
// it is, and with what it is reached, is found by find, when it is needed.
type server struct {
	flag    string // that names it, without dashes
	env     string // that names it
	port    string // where none is given
	addr    string // as given: HOST[:PORT], with or without http:// or https://
	timeout time.Duration
	http    *http.Client
	flags   interface { // of the command; nil: addr is as it shall be
		Changed(name string) bool
	}
	wanted  *string // --context
	context string  // whose address it is; empty: nobody's
	origin  string  // of addr, one of from…; empty: not found yet
	from    sources
	a       access
}

// serverFlags are the flags of commands that speak to a node's HTTP address.
func serverFlags(cmd *cobra.Command) *server {
	srv := &server{flag: "server", env: envServer, port: defaultPort, http: &http.Client{}}
	cmd.Flags().StringVarP(&srv.addr, "server", "s", defaultServer, "HTTP address of a node, https:// before it for TLS (environment "+envServer+")")
	srv.common(cmd)
	return srv
}

// adminFlags are the flags of commands that speak to a node's admin address.
func adminFlags(cmd *cobra.Command) *server {
	srv := &server{flag: "admin", env: envAdmin, port: defaultAdminPort, http: &http.Client{}}
	cmd.Flags().StringVar(&srv.addr, "admin", defaultAdmin, "admin address of a node, any of the cluster (environment "+envAdmin+")")
	srv.common(cmd)
	return srv
}

// common are the flags of all commands that speak to a node.
func (srv *server) common(cmd *cobra.Command) {
	srv.wanted = new(string)
	srv.flags = cmd.Flags()
	cmd.Flags().StringVar(srv.wanted, "context", "", "what to speak to, by a name that 'tidings context' knows (environment "+envContext+")")
	cmd.Flags().DurationVar(&srv.timeout, "timeout", 30*time.Second, "how long to wait for an answer")
	completeFlag(cmd, "context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return contextsThere() })
	completeFlag(cmd, srv.flag, cobra.NoFileCompletions)
	completeFlag(cmd, "timeout", cobra.NoFileCompletions)
}

// beside is the other address of the same node, for a command that needs both
// and has the flags of srv only: what srv's flags say of the context and the
// timeout holds for it too.
func (srv *server) beside(other server) *server {
	other.flags, other.wanted, other.timeout, other.http = srv.flags, srv.wanted, srv.timeout, &http.Client{}
	return &other
}

// adminBeside is the admin address that goes with srv.
func (srv *server) adminBeside() *server {
	return srv.beside(server{flag: "admin", env: envAdmin, port: defaultAdminPort, addr: defaultAdmin})
}

// serverBeside is the HTTP address that goes with srv.
func (srv *server) serverBeside() *server {
	return srv.beside(server{flag: "server", env: envServer, port: defaultPort, addr: defaultServer})
}

// find says once where the node is and with what it is reached: every command
// has it from here. An address comes from its flag, from the context that
// --context names, from the environment, from the context of TIDINGS_CONTEXT or
// of `context use`, or is the default, in this order.
//
// What a context has beside its addresses is for these only: the secret of one
// cluster is not sent to another because TIDINGS_SERVER is set. On the command
// line --server beside --context is another node of the same.
func (srv *server) find() error {
	if srv.origin != "" || srv.flags == nil {
		return nil
	}
	explicit := *srv.wanted != ""
	env, given := srv.fromEnv(), srv.flags.Changed(srv.flag)
	name := ""
	if explicit || !given && env == "" { // else no context counts, nor what is wrong with them
		var err error
		if name, _, err = wantedContext(*srv.wanted); err != nil {
			return err
		}
	}
	switch {
	case given:
		srv.origin = fromFlag
	case env != "" && !explicit:
		srv.origin, srv.addr = fromEnvironment, env
	case name == "":
		srv.origin = fromDefault
	default:
		srv.origin = fromContext
	}
	c, err := contextNamed(name)
	if err != nil {
		srv.origin = ""
		return err
	}
	if srv.origin == fromContext {
		if srv.addr = c.address(srv.flag); srv.addr == "" {
			srv.origin = ""
			return usagef("context %s says not where the node's %s address is; give --%s, or put it there with `tidings context add %s --update --%s HOST:PORT`",
				name, map[string]string{"server": "HTTP", "admin": "admin"}[srv.flag], srv.flag, name, srv.flag)
		}
	}
	srv.context = name
	srv.from = c.sources(explicit)
	if srv.a, err = srv.from.access(srv.addr); err != nil {
		srv.origin = ""
	}
	return err
}

// contextNamed is the context of that name, none for an empty one.
func contextNamed(name string) (namedContext, error) {
	if name == "" {
		return namedContext{}, nil
	}
	file, err := loadContexts()
	if err != nil {
		return namedContext{}, err
	}
	return file.get(name)
}

// wantedContext is the context that holds, empty for none; explicit says that
// it is named on the command line.
func wantedContext(flag string) (name string, explicit bool, err error) {
	if flag != "" {
		return flag, true, nil
	}
	if name := envContextValue(); name != "" {
		return name, false, nil
	}
	file, err := loadContexts()
	if err != nil {
		return "", false, err
	}
	return file.Current, false, nil
}

func envContextValue() string { return os.Getenv(envContext) }

// fromEnv is the address that the environment says, empty for none.
func (srv *server) fromEnv() string { return os.Getenv(srv.env) }

// address is the one that a flag names.
func (c *namedContext) address(flag string) string {
	if flag == "admin" {
		return c.Admin
	}
	return c.Server
}

// at is the address for people, with what it comes from where that is a context.
func (srv *server) at(host string) string {
	if srv.origin == fromContext {
		return fmt.Sprintf("%s (context %s)", host, srv.context)
	}
	return host
}

// transport is http's, made once a server needs its own.
func (srv *server) transport(config *tls.Config) {
	if srv.http.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = config
		srv.http.Transport = t
	}
}
