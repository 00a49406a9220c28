package config

import (
	"os"

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
)

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
