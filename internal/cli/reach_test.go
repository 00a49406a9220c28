package cli

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// contexts makes contexts.toml of this test, and an environment without a word
// about nodes.
func contexts(t *testing.T, text string) (dir string) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	for _, env := range []string{envServer, envAdmin, envContext, envSecret, envCA, envCert, envKey} {
		t.Setenv(env, "")
	}
	dir = filepath.Join(home, "tidings")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"contexts.toml": text, "secret": "of prod\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const twoContexts = `
current = "prod"
[context.prod]
server = "prod:1"
admin = "prod:2"
secret_file = "secret"
[context.staging]
server = "staging:1"
`

// A flag wins over the environment, that over a context, that over the default;
// the secret of a context goes to its own addresses only.
func TestWhereANodeIs(t *testing.T) {
	for _, c := range []struct {
		name, words string
		env         []string
		server      string // address, origin, context, secret
		admin       string // address, origin, context; or what the error says
	}{
		{"current", "", nil, "prod:1 context prod of prod", "prod:2 context prod"},
		{"environment", "", []string{envServer, "env:1"}, "env:1 environment  ", "prod:2 context prod"},
		{"both of it", "", []string{envServer, "env:1", envAdmin, "env:2", envSecret, "e"}, "env:1 environment  e", "env:2 environment "},
		{"secret of it", "", []string{envSecret, "e"}, "prod:1 context prod e", "prod:2 context prod"},
		{"flag", "--server f:1 --admin f:2", []string{envServer, "env:1"}, "f:1 flag  ", "f:2 flag "},
		{"named", "--context staging", []string{envServer, "env:1", envSecret, "e"}, "staging:1 context staging e", "context staging says not where the node's admin address is; give --admin"},
		{"named above the environment", "--context prod", []string{envServer, "env:1", envAdmin, "env:2", envSecret, "e"}, "prod:1 context prod of prod", "prod:2 context prod"},
		{"another node of the named", "--context prod --server f:1", nil, "f:1 flag prod of prod", "prod:2 context prod"},
		{"of the environment", "", []string{envContext, "staging"}, "staging:1 context staging ", "context staging says not where"},
		{"of the environment, with an address", "", []string{envContext, "prod", envServer, "env:1"}, "env:1 environment  ", "prod:2 context prod"},
		{"named, not there", "--context stagin", nil, "context stagin not found; did you mean staging?", "did you mean staging?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			contexts(t, twoContexts)
			for i := 0; i < len(c.env); i += 2 {
				t.Setenv(c.env[i], c.env[i+1])
			}
			cmd := &cobra.Command{Use: "x"}
			srv := serverFlags(cmd)
			cmd.Flags().StringVar(new(string), "admin", "", "")
			if err := cmd.ParseFlags(strings.Fields(c.words)); err != nil {
				t.Fatal(err)
			}
			admin := srv.adminBeside()
			admin.addr = cmd.Flag("admin").Value.String()
			if got := told(srv, true); !strings.Contains(got, c.server) {
				t.Errorf("server: %s, want %s", got, c.server)
			}
			if got := told(admin, false); !strings.Contains(got, c.admin) {
				t.Errorf("admin: %s, want %s", got, c.admin)
			}
		})
	}
	contexts(t, "")
	if got := told(serverFlags(&cobra.Command{}), true); got != defaultServer+" default  " {
		t.Error(got)
	}
}

func told(srv *server, secret bool) string {
	if err := srv.find(); err != nil {
		return err.Error()
	}
	words := []string{srv.addr, srv.origin, srv.context}
	if secret {
		words = append(words, srv.a.secret)
	}
	return strings.Join(words, " ")
}

func TestContextsThatCannotBe(t *testing.T) {
	for text, want := range map[string]string{
		"currnt = \"x\"":                         "contexts.toml:1:1: unknown key currnt; did you mean current?",
		"[context.a]\nservr = \"x\"":             "contexts.toml:2:1: unknown key context.a.servr; did you mean server?",
		"[context.a]\nnonsense = \"x\"":          "unknown key context.a.nonsense; known are server, admin, ca_file, cert_file, key_file, secret_file",
		"[context.a]\nserver = 4151":             "contexts.toml:2:",
		"[context.a\nserver = \"x\"":             "contexts.toml:1:",
		"[context.\"a b\"]\nserver = \"x\"":      `context "a b": a name has`,
		"current = \"gone\"":                     "context gone not found; `tidings context add` makes one",
		"current = \"a\"\n[context.a]\n":         "context a says not where the node's HTTP address is; give --server, or put it there with `tidings context add a --update --server HOST:PORT`",
		"current = \"b\"\n[context.\"a.x\"]\n":   "context b not found; `tidings context ls`",
		twoContexts + "secret_file = \"absent\"": "",
	} {
		contexts(t, text)
		got := told(serverFlags(&cobra.Command{}), true)
		if !strings.Contains(got, want) {
			t.Errorf("%s\n%s, want %s", text, got, want)
		}
	}
	dir := contexts(t, twoContexts)
	for text, want := range map[string]string{"": "is empty", "\nx\n": "is empty", strings.Repeat("x", secretMax+1): "holds no secret"} {
		if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := told(serverFlags(&cobra.Command{}), true); !strings.Contains(got, want) {
			t.Errorf("%.10q: %s", text, got)
		}
	}
}

func TestNamesOfDotsAreNames(t *testing.T) {
	for path, want := range map[string]string{
		"/api/v1/topics/../messages":               "/api/v1/topics/%2E%2E/messages",
		"/api/v1/topics/./channels/..":             "/api/v1/topics/%2E/channels/%2E%2E",
		"/api/v1/topics/a..b/channels/x#ephemeral": "/api/v1/topics/a..b/channels/x%23ephemeral",
	} {
		u := url.URL{Scheme: "http", Host: "h", Path: path, RawPath: rawPath(path)}
		if got := u.String(); got != "http://h"+want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
