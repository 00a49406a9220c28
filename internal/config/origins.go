package config

import (
	"os"
	"strings"

	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
)

// Where a value can come from.
const (
	OriginDefault     = "default"
	OriginFile        = "file"
	OriginEnvironment = "environment"
	OriginFlag        = "flag"
	OriginUnknown     = "unknown" // nobody has noted it
)

// Described is a setting as people see it, with its value and where that comes
// from.
type Described struct {
	Key     string // in a configuration file
	Flag    string // with its dashes
	Env     string
	Type    string // as Field has it
	Value   string // as on the command line; passwords are ***
	Default string
	Origin  string // one of Origin…
	Secret  bool   // the value as a whole is never shown: "***", or empty
	Help    string
}

// Describe tells of settings and where they come from, as Origins says; nil
// origins are unknown where a value is not the default.
func Describe(fields []Field, origins map[string]string) []Described {
	out := make([]Described, 0, len(fields))
	for _, f := range fields {
		d := Described{
			Key: f.Key(), Flag: "--" + f.Name, Env: f.Env(), Type: f.Type, Value: withoutPasswords(f.String()), Default: f.Default,
			Origin: origins[f.Key()], Help: f.Help,
		}
		switch {
		case d.Origin != "":
		case origins == nil && f.String() != f.Default:
			d.Origin = OriginUnknown
		default:
			d.Origin = OriginDefault
		}
		out = append(out, d)
	}
	return out
}

// withoutPasswords masks user and password of URLs in a value, which may be a
// list.
func withoutPasswords(value string) string {
	if !strings.Contains(value, "@") {
		return value
	}
	parts := strings.Split(value, ",")
	for i, p := range parts {
		begin := 0
		if at := strings.Index(p, "://"); at >= 0 {
			begin = at + len("://")
		}
		authority := p[begin:]
		if end := strings.IndexAny(authority, "/?#"); end >= 0 {
			authority = authority[:end]
		}
		if at := strings.LastIndex(authority, "@"); at >= 0 {
			parts[i] = p[:begin] + "***" + p[begin+at:]
		}
	}
	return strings.Join(parts, ",")
}

// Origins tells where each setting that is not at its default comes from, by its
// file key: the strongest source that names it. It is for a source that Load has
// taken.
func Origins(src Source) map[string]string {
	c := defaults(src.NSQD)
	fields := c.fields(src.NSQD)
	known := make(map[string]Field, len(fields))
	for _, f := range fields {
		known[f.Key()] = f
	}
	out := make(map[string]string)
	note := func(values map[string]any, origin string) {
		for key := range values {
			if _, ok := known[key]; ok {
				out[key] = origin
			}
		}
	}
	if src.File != "" {
		if text, err := os.ReadFile(src.File); err == nil {
			file := koanf.New("\x00")
			if file.Load(rawbytes.Provider(text), toml.Parser()) == nil {
				note(file.Raw(), OriginFile)
			}
		}
	}
	env, _ := environ(src.Environ, known)
	note(env, OriginEnvironment)
	note(byKey(src.Flags, fields), OriginFlag)
	return out
}
