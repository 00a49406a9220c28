//go:build faults

package plant

import (
	"os"
	"strings"
	"sync/atomic"
)

var planted atomic.Pointer[map[string]bool]

func init() { Set(strings.Split(os.Getenv("TIDINGS_PLANT"), ",")...) }

// Set replaces the planted bugs of this process.
func Set(names ...string) {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	planted.Store(&m)
}

// On reports whether the named bug is planted in this process, through Set or
// the environment variable TIDINGS_PLANT (names separated by commas).
func On(name string) bool { return (*planted.Load())[name] }
