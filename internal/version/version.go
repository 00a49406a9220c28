// Package version says which tidings this binary is.
package version

import "runtime/debug"

// NSQ is the NSQ release whose behaviour clients may expect: the version in
// IDENTIFY's answer, /info and /stats. NSQ's tools parse it as a semantic
// version and switch features on it.
const NSQ = "1.3.0"

// Number is the release of tidings.
const Number = "0.1.0"

// String is the release with the commit it was built from, where that is known.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Number
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = "+" + s.Value[:min(len(s.Value), 10)]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = ".dirty"
			}
		}
	}
	if revision == "" {
		return Number
	}
	return Number + revision + dirty
}
