package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	gotoml "github.com/pelletier/go-toml/v2"

	"github.com/tidings-io/tidings/internal/config"
)

// namedContext is a node or cluster under a name, as contexts.toml has it.
// Secrets are never in the file, only the paths of files that hold them. A
// relative path is relative to the folder of contexts.toml.
type namedContext struct {
	Server     string `toml:"server,omitempty"`      // HTTP address, https:// before it for TLS
	Admin      string `toml:"admin,omitempty"`       // admin address, likewise
	CAFile     string `toml:"ca_file,omitempty"`     // PEM: authorities of the nodes' certificates
	CertFile   string `toml:"cert_file,omitempty"`   // PEM: certificate that nodes are shown
	KeyFile    string `toml:"key_file,omitempty"`    // PEM: its key
	SecretFile string `toml:"secret_file,omitempty"` // one line: what auth servers know the user by
}

// contextFile is contexts.toml.
type contextFile struct {
	path     string
	Current  string                  `toml:"current,omitempty"`
	Contexts map[string]namedContext `toml:"context,omitempty"`
}

// contextsPath is where the contexts of this user are.
func contextsPath() (string, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // as the XDG specification wants it
		home, err := os.UserHomeDir()
		if err != nil {
			return "", failf(exitFailure, "there is no place for contexts: %w; set XDG_CONFIG_HOME", err)
		}
		dir = filepath.Join(home, ".config")
		if runtime.GOOS == "windows" {
			if own, err := os.UserConfigDir(); err == nil {
				dir = own
			}
		}
	}
	return filepath.Join(dir, "tidings", "contexts.toml"), nil
}

// loadContexts reads the file; without one there are no contexts.
func loadContexts() (*contextFile, error) {
	path, err := contextsPath()
	if err != nil {
		return nil, err
	}
	f := &contextFile{path: path, Contexts: make(map[string]namedContext)}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, nil
	case err != nil:
		return nil, failf(exitFailure, "read contexts: %w", err)
	}
	dec := gotoml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := dec.Decode(f); err != nil {
		return nil, contextsError(path, err)
	}
	if f.Contexts == nil {
		f.Contexts = make(map[string]namedContext)
	}
	for name := range f.Contexts {
		if !contextNames.MatchString(name) {
			return nil, usagef("%s: %w", path, badContextName(name))
		}
	}
	return f, nil
}

// contextsError says what is wrong with the file, and where.
func contextsError(path string, err error) error {
	if unknown, ok := errors.AsType[*gotoml.StrictMissingError](err); ok {
		e := unknown.Errors[0]
		row, column := e.Position()
		key := e.Key()
		known := []string{"server", "admin", "ca_file", "cert_file", "key_file", "secret_file"}
		if len(key) < 3 { // not within [context.NAME]
			known = []string{"current", "context"}
		}
		hint := "; known are " + strings.Join(known, ", ")
		if near := config.Nearest(key[len(key)-1], known); near != "" {
			hint = "; did you mean " + near + "?"
		}
		return usagef("%s:%d:%d: unknown key %s%s", path, row, column, strings.Join(key, "."), hint)
	}
	if at, ok := errors.AsType[*gotoml.DecodeError](err); ok {
		row, column := at.Position()
		return usagef("%s:%d:%d: %s", path, row, column, strings.TrimPrefix(at.Error(), "toml: "))
	}
	return usagef("%s: %s", path, strings.TrimPrefix(err.Error(), "toml: "))
}

// save replaces the file in one step, so that a reader sees the old one or the
// new one, also after a crash.
func (f *contextFile) save() error {
	text, err := gotoml.Marshal(f)
	if err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	if err := f.replace(append([]byte("# Contexts of tidings; `tidings context` writes this file anew, comments are lost.\n\n"), text...)); err != nil {
		return failf(exitFailure, "write contexts: %w", err)
	}
	return nil
}

func (f *contextFile) replace(text []byte) (err error) {
	path := f.path
	if real, err := filepath.EvalSymlinks(path); err == nil { // kept among dotfiles: the link stays
		path = real
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".contexts-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name()) // the error that matters is reported
		}
	}()
	_, err = tmp.Write(text)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// names are those of the contexts, sorted.
func (f *contextFile) names() []string { return slices.Sorted(maps.Keys(f.Contexts)) }

// get is the context of that name, with paths that hold from any folder.
func (f *contextFile) get(name string) (namedContext, error) {
	c, ok := f.Contexts[name]
	if !ok {
		hint := "`tidings context add` makes one"
		if near := config.Nearest(name, f.names()); near != "" {
			hint = "did you mean " + near + "?"
		} else if len(f.Contexts) > 0 {
			hint = "`tidings context ls` lists what is there"
		}
		return c, failf(exitNotFound, "context %s not found; %s", name, hint)
	}
	for _, p := range []*string{&c.CAFile, &c.CertFile, &c.KeyFile, &c.SecretFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(f.path), *p)
		}
	}
	return c, nil
}

// contextNames are the names that a context can have: words of a command line,
// and bare keys of TOML but for the dot.
var contextNames = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)

func badContextName(name string) error {
	return usagef("context %q: a name has 1 to 64 of the characters . a-z A-Z 0-9 _ - and begins with none of . and -", name)
}
