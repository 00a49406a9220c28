package cli

import (
	"bytes"
	"io/fs"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tidings-io/tidings/internal/config"
)

func TestLimitMemory(t *testing.T) {
	group := fstest.MapFS{
		"proc/self/cgroup":         {Data: []byte("0::/\n")},
		"proc/self/mountinfo":      {Data: []byte("30 20 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")},
		"sys/fs/cgroup/memory.max": {Data: []byte("536870912\n")},
	}
	broken := fstest.MapFS{"proc/self/cgroup": {Data: []byte("0::/\n")}}
	const untouched = 0
	for name, c := range map[string]struct {
		setting, env string
		root         fs.FS
		want         int64
		log          string
	}{
		"auto in a group":         {"auto", "", group, 483183819, "bytes=483183819 from=/sys/fs/cgroup/memory.max"},
		"auto without a group":    {"auto", "", fstest.MapFS{}, untouched, ""},
		"auto that can't be read": {"auto", "", broken, untouched, "level=WARN"},
		"auto with GOMEMLIMIT":    {"auto", "1GiB", group, untouched, "from=GOMEMLIMIT"},
		"a size":                  {"256MiB", "1GiB", group, 256 << 20, "bytes=268435456 from=memory-limit"},
		"off":                     {"off", "1GiB", group, math.MaxInt64, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOMEMLIMIT", c.env)
			cfg := config.Default()
			cfg.MemoryLimit = c.setting
			var log bytes.Buffer
			got := int64(untouched)
			err := limitMemory(slog.New(slog.NewTextHandler(&log, nil)), cfg, c.root, func(n int64) int64 {
				if n >= 0 {
					got = n
				}
				return 1 << 30
			})
			if err != nil || got != c.want {
				t.Errorf("limit %d, %v; want %d", got, err, c.want)
			}
			if !strings.Contains(log.String(), c.log) || c.log == "" && log.Len() > 0 {
				t.Errorf("log %q, want %q", &log, c.log)
			}
		})
	}
}
