//go:build faults

package vfs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// VolatileEnv chooses the file system of a process in builds with the tag
// faults: unset or "os" for OS, "volatile" for a Volatile that loses all that
// was not synced when the process dies, "volatile:<seed>" for one from which
// random parts go through early, "slow:<file>" for OS with syncs that take as
// much longer as the file says at that moment ("300ms"); without the file they
// take no longer.
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
	case kind == "slow" && seed != "":
		f := NewFault(OS{})
		f.Add(Rule{Ops: OpSync | OpSyncDir, Wait: func() time.Duration { return slowness(seed) }})
		return f
	}
	panic(fmt.Sprintf("%s=%q: want os, volatile, volatile:<seed> or slow:<file>", VolatileEnv, choice))
})

// slowness reads how long a sync is to wait. It panics when it cannot understand
// the file, as Default does.
func slowness(file string) time.Duration {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	wait, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", file, err))
	}
	return wait
}
