//go:build faults

package vfs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
)

// VolatileEnv chooses the file system of a process in builds with the tag
// faults: unset or "os" for OS, "volatile" for a Volatile that loses all that
// was not synced when the process dies, "volatile:<seed>" for one from which
// random parts go through early.
const VolatileEnv = "TIDINGS_VFS"

// Default is the file system a process works on: OS, or a Volatile when
// VolatileEnv says so; the same one at every call. It panics when it cannot
// understand VolatileEnv: a fault test that tests nothing must not pass.
func Default() FS { return defaultFS() }

var defaultFS = sync.OnceValue(func() FS {
	choice := os.Getenv(VolatileEnv)
	kind, seed, seeded := strings.Cut(choice, ":")
	switch {
	case choice == "" || choice == "os":
		return OS{}
	case kind == "volatile" && !seeded:
		return NewVolatile(OS{})
	case kind == "volatile":
		n, err := strconv.ParseUint(seed, 10, 64)
		if err == nil {
			return NewVolatile(OS{}).Seed(n)
		}
	}
	panic(fmt.Sprintf("%s=%q: want os, volatile or volatile:<seed>", VolatileEnv, choice))
})
