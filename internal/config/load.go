package config

import (
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
)

// Source is where Load finds values. Flags win over Env, Env over File.
type Source struct {
	File    string            // path of a TOML file; empty: none
	Environ []string          // as os.Environ gives it
	Flags   map[string]string // by flag name; only those that were set
	NSQD    bool              // nsqd's defaults and file keys; unknown file keys warn
}

// Load builds a configuration from its sources. Warnings name file keys that
// were passed over, which only happens under the name nsqd: everywhere else an
// unknown key is an error with a suggestion.
func Load(src Source) (c Config, warnings []string, err error) {
	c = defaults(src.NSQD)
	fields := c.fields(src.NSQD)
	known := make(map[string]Field, len(fields))
	for _, f := range fields {
		known[f.Key()] = f
	}
	k := koanf.New("\x00") // flat names: no key is split
	if src.File != "" {
		if warnings, err = loadFile(k, src, known); err != nil {
			return c, nil, err
		}
	}
	if err := k.Load(confmap.Provider(environ(src.Environ, fields), "\x00"), nil); err != nil {
		return c, nil, fmt.Errorf("read environment: %w", err)
	}
	flags := make(map[string]any, len(src.Flags))
	for name, v := range src.Flags {
		flags[strings.ReplaceAll(name, "-", "_")] = v
	}
	if err := k.Load(confmap.Provider(flags, "\x00"), nil); err != nil {
		return c, nil, fmt.Errorf("read flags: %w", err)
	}
	for _, key := range k.Keys() {
		f, ok := known[key]
		if !ok {
			continue
		}
		if err := f.Set(fmt.Sprint(k.Get(key))); err != nil {
			return c, nil, err
		}
	}
	return c, warnings, c.Validate()
}

func loadFile(k *koanf.Koanf, src Source, known map[string]Field) (warnings []string, err error) {
	text, err := os.ReadFile(src.File)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	file := koanf.New("\x00")
	if err := file.Load(rawbytes.Provider(text), toml.Parser()); err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", src.File, err)
	}
	values := make(map[string]any)
	for key, v := range file.Raw() {
		f, ok := known[key]
		switch {
		case ok && (f.Type == "string" || !isList(v)):
			values[key] = v
		case ok:
			return nil, fmt.Errorf("read configuration %s: %s: want a %s", src.File, key, f.Type)
		case src.NSQD:
			warnings = append(warnings, fmt.Sprintf("configuration key %s in %s means nothing here and is passed over", key, src.File))
		default:
			return nil, fmt.Errorf("read configuration %s: unknown key %s%s", src.File, key, suggest(key, known))
		}
	}
	sort.Strings(warnings)
	return warnings, k.Load(confmap.Provider(values, "\x00"), nil)
}

func isList(v any) bool {
	switch v.(type) {
	case []any, map[string]any:
		return true
	}
	return false
}

func environ(env []string, fields []Field) map[string]any {
	byEnv := make(map[string]string, len(fields))
	for _, f := range fields {
		byEnv[f.Env()] = f.Key()
	}
	out := make(map[string]any)
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if key, ok := byEnv[name]; ok {
			out[key] = value
		}
	}
	return out
}

func suggest(key string, known map[string]Field) string {
	best, dist := "", 4
	for k := range known {
		if d := distance(key, k); d < dist || (d == dist && k < best) {
			best, dist = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
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
