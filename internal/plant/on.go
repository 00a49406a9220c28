//go:build faults

package plant

import (
	"os"
	"slices"
	"strings"
	"sync/atomic"
)

// planted maps each planted bug to whether the code has asked for it.
var planted atomic.Pointer[map[string]*atomic.Bool]

func init() { Set(strings.Split(os.Getenv("TIDINGS_PLANT"), ",")...) }

// Set replaces the planted bugs of this process. Empty names plant nothing.
func Set(names ...string) {
	m := make(map[string]*atomic.Bool, len(names))
	for _, n := range names {
		if n != "" {
			m[n] = new(atomic.Bool)
		}
	}
	planted.Store(&m)
}

// On reports whether the named bug is planted in this process, through Set or
// the environment variable TIDINGS_PLANT (names separated by commas).
func On(name string) bool {
	asked := (*planted.Load())[name]
	if asked == nil {
		return false
	}
	asked.Store(true)
	return true
}

// Unasked lists, sorted, the planted bugs that no code has asked for since Set:
// misspelled, or in code that the test does not reach. A test that expects a
// bug to be caught checks that there are none.
func Unasked() []string {
	var names []string
	for name, asked := range *planted.Load() {
		if !asked.Load() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
