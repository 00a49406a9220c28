package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	gotoml "github.com/pelletier/go-toml/v2"
)

// Source is where Load finds values. Flags win over Environ, Environ over File,
// File over Defaults.
type Source struct {
	Defaults map[string]string // by flag name, in place of the written ones
	File     string            // path of a TOML file; empty: none
	Environ  []string          // as os.Environ gives it
	Flags    map[string]string // by flag name; only those that were set
	NSQD     bool              // nsqd's defaults and file keys; unknown file keys warn
}

// layered is what the sources said, the strongest last, and where each value
// stood, for errors that name the place.
type layered struct {
	values *koanf.Koanf
	place  map[string]string // by key
}

func (l *layered) add(values map[string]any, place func(key string) string) error {
	for key := range values {
		l.place[key] = place(key)
	}
	return l.values.Load(confmap.Provider(values, "\x00"), nil)
}

// Load builds a configuration from its sources. Warnings name what was passed
// over or adapted: unknown file keys, under the name nsqd only (elsewhere they
// are errors with a suggestion), and environment variables that look like a
// setting and are none. An error names the place of the value, the value, and
// what is wanted.
func Load(src Source) (c Config, warnings []string, err error) {
	c = defaults(src.NSQD)
	if warnings, err = load(src, c.fields(src.NSQD), c.Unused.Fields()); err != nil {
		return c, nil, err
	}
	if src.NSQD {
		warnings = append(warnings, c.adaptNSQD()...)
	}
	return c, warnings, c.Validate()
}

// load sets fields, which have their defaults, from a source; of those that mean
// nothing here, only nsqd's own sources may speak.
func load(src Source, fields, meaningless []Field) (warnings []string, err error) {
	known := make(map[string]Field, len(fields))
	for _, f := range fields {
		known[f.Key()] = f
	}
	unused := make(map[string]Field)
	for _, f := range meaningless {
		unused[f.Key()] = f
	}
	l := &layered{values: koanf.New("\x00"), place: make(map[string]string)} // flat names: no key is split
	place := func(key string) string {
		if f, ok := known[key]; ok {
			return "--" + f.Name
		}
		return "--" + unused[key].Name
	}
	if err := l.add(byKey(src.Defaults, fields), place); err != nil {
		return nil, fmt.Errorf("read defaults: %w", err)
	}
	if src.File != "" {
		if warnings, err = l.addFile(src, known, unused); err != nil {
			return nil, err
		}
	}
	env, misspelt := environ(src.Environ, known)
	warnings = append(warnings, misspelt...)
	if err := l.add(env, func(key string) string { return known[key].Env() }); err != nil {
		return nil, fmt.Errorf("read environment: %w", err)
	}
	if err := l.add(byKey(src.Flags, fields), place); err != nil {
		return nil, fmt.Errorf("read flags: %w", err)
	}
	for _, key := range l.values.Keys() {
		f, ok := known[key]
		if !ok && src.NSQD {
			f, ok = unused[key]
		}
		if !ok {
			return nil, fmt.Errorf("unknown setting %s", key)
		}
		text := l.values.String(key)
		if err := f.Set(text); err != nil {
			return nil, fmt.Errorf("%s %q: %w", l.place[key], text, err)
		}
	}
	return warnings, nil
}

// byKey turns flag names into file keys.
func byKey(flags map[string]string, fields []Field) map[string]any {
	out := make(map[string]any, len(flags))
	for name, v := range flags {
		key := strings.ReplaceAll(name, "-", "_")
		if i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name }); i >= 0 {
			key = fields[i].Key()
		}
		out[key] = v
	}
	return out
}

// addFile adds the values of the configuration file.
func (l *layered) addFile(src Source, known, unused map[string]Field) (warnings []string, err error) {
	text, err := os.ReadFile(src.File)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	file := koanf.New("\x00")
	if err := file.Load(rawbytes.Provider(text), toml.Parser()); err != nil {
		return nil, syntaxError(src.File, err)
	}
	values := make(map[string]any)
	for key, v := range file.Raw() {
		f, ok := known[key]
		switch {
		case ok:
			if values[key], err = scalar(f, v); err != nil {
				return nil, fmt.Errorf("%s: %s = %v: %w", src.File, key, v, err)
			}
		case src.NSQD && unused[key].Name != "":
			if values[key], err = scalar(unused[key], v); err != nil {
				return nil, fmt.Errorf("%s: %s = %v: %w", src.File, key, v, err)
			}
			fallthrough
		case src.NSQD:
			warnings = append(warnings, fmt.Sprintf("configuration key %s in %s has no effect here", key, src.File))
		default:
			return nil, fmt.Errorf("%s: unknown key %s%s", src.File, key, suggest(key, known))
		}
	}
	sort.Strings(warnings)
	return warnings, l.add(values, func(key string) string { return src.File + ": " + key })
}

// syntaxError says where in the file the TOML ends to make sense.
func syntaxError(file string, err error) error {
	if at, ok := errors.AsType[*gotoml.DecodeError](err); ok {
		row, column := at.Position()
		return fmt.Errorf("%s:%d:%d: not TOML: %s", file, row, column, strings.TrimPrefix(at.Error(), "toml: "))
	}
	return fmt.Errorf("%s: not TOML: %s", file, strings.TrimPrefix(err.Error(), "toml: "))
}

// scalar is the text of a TOML value, if it is of a type that the setting may
// be written in: a string always, a bare number or truth value where it is one.
func scalar(f Field, v any) (string, error) {
	switch x := v.(type) {
	case string:
		return x, nil
	case bool:
		if f.IsBool() {
			return strconv.FormatBool(x), nil
		}
	case int64:
		if f.Type == "int" || f.Type == "size" || f.Type == "duration" || f.Type == "float64" || f.number {
			return strconv.FormatInt(x, 10), nil
		}
	case float64:
		if f.Type == "float64" {
			return strconv.FormatFloat(x, 'g', -1, 64), nil
		}
	case []any:
		if f.Type == "list" {
			return listText(x, f.number)
		}
	}
	return "", errors.New("want " + wanted[f.Type])
}

// wanted says how a setting of each type is written in a file.
var wanted = map[string]string{
	"string":   `text in quotes`,
	"bool":     `true or false`,
	"int":      `a whole number`,
	"size":     `a size such as "64MiB", or a number of bytes`,
	"duration": `a duration such as "30s", or a number of milliseconds`,
	"list":     `texts in brackets, such as ["127.0.0.1:4160"], without commas in them`,
}

// commandLine are the variables of commands that are no settings, and a test
// build's.
var commandLine = []string{"SERVER", "ADMIN", "CONTEXT", "SECRET", "CA", "CERT", "KEY", "VFS"}

// environ picks the settings out of the environment. An empty value counts only
// where empty text is a value.
func environ(env []string, known map[string]Field) (values map[string]any, misspelt []string) {
	values = make(map[string]any)
	byEnv := make(map[string]Field, len(known))
	for _, f := range known {
		byEnv[f.Env()] = f
	}
	elsewhere := otherEnviron()
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		rest, ok := strings.CutPrefix(name, "TIDINGS_")
		if !ok {
			continue
		}
		switch f, ok := byEnv[name]; {
		case ok:
			if value != "" || f.Type == "string" || f.Type == "list" {
				values[f.Key()] = value
			}
		case slices.Contains(commandLine, rest):
		case elsewhere[name]:
		default:
			if near := nearest(strings.ToLower(rest), known); near != "" {
				misspelt = append(misspelt, fmt.Sprintf("environment variable %s is no setting; did you mean %s?", name, known[near].Env()))
			}
		}
	}
	sort.Strings(misspelt)
	return values, misspelt
}

// otherEnviron are the variables of all programs: several may share one
// environment.
func otherEnviron() map[string]bool {
	c, a, e := Default(), DefaultNSQAdmin(), DefaultEdge()
	names := make(map[string]bool)
	for _, f := range slices.Concat(c.Fields(), a.Fields(), e.Fields()) {
		names[f.Env()] = true
	}
	return names
}

func suggest(key string, known map[string]Field) string {
	if near := nearest(key, known); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return "; `tidings config init` lists the keys"
}

// nearest is the known key that a word was probably meant to be, or empty.
func nearest(key string, known map[string]Field) string {
	best, dist := "", 4
	for k := range known {
		if d := distance(key, k); d < dist || (d == dist && k < best) {
			best, dist = k, d
		}
	}
	return best
}

// Nearest is the name that a word was probably meant to be: the one that a few
// letters make of it, else the first that holds it. Empty: none is.
func Nearest(word string, names []string) string {
	best, least := "", 1+len(word)/3
	for _, name := range names {
		if d := distance(word, name); d <= least && d < len(word) {
			best, least = name, d-1
		}
	}
	for i := 0; best == "" && i < len(names) && len(word) > 3; i++ {
		if strings.Contains(names[i], word) {
			best = names[i]
		}
	}
	return best
}

// distance is the Levenshtein distance between two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost++
			}
			prev = row[j+1]
			row[j+1] = min(cost, row[j]+1, prev+1)
		}
	}
	return row[len(b)]
}
