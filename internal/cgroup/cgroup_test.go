package cgroup

import (
	"os"
	"runtime"
	"testing"
	"testing/fstest"
)

func system(files map[string]string) fstest.MapFS {
	fs := make(fstest.MapFS)
	for name, text := range files {
		fs[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fs
}

const (
	mount2 = "30 20 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	mount1 = "29 20 0:24 / /proc rw - proc proc rw\n" +
		"31 20 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"32 20 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)

func TestMemoryLimit(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
		file  string
	}{
		"no control groups": {files: nil},
		"version 2, own group": {
			map[string]string{
				"proc/self/cgroup": "0::/system.slice/tidings.service\n", "proc/self/mountinfo": mount2,
				"sys/fs/cgroup/system.slice/tidings.service/memory.max": "1000000\n",
				"sys/fs/cgroup/system.slice/memory.max":                 "max\n",
			}, 1000000, "/sys/fs/cgroup/system.slice/tidings.service/memory.max",
		},
		"version 2, a parent is stricter": {
			map[string]string{
				"proc/self/cgroup": "0::/pod/app\n", "proc/self/mountinfo": mount2,
				"sys/fs/cgroup/pod/app/memory.max": "2000000\n", "sys/fs/cgroup/pod/memory.max": "1500000\n",
			}, 1500000, "/sys/fs/cgroup/pod/memory.max",
		},
		"version 2, a container's namespace": {
			map[string]string{
				"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mount2,
				"sys/fs/cgroup/memory.max": "3000000\n",
			}, 3000000, "/sys/fs/cgroup/memory.max",
		},
		"version 2, no limit": {
			files: map[string]string{
				"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mount2, "sys/fs/cgroup/a/memory.max": "max\n",
			},
		},
		"version 2, a group that can't be seen": {
			map[string]string{
				"proc/self/cgroup": "0::/../other\n", "proc/self/mountinfo": mount2, "sys/fs/cgroup/memory.max": "4000000\n",
			}, 4000000, "/sys/fs/cgroup/memory.max",
		},
		"version 1": {
			map[string]string{
				"proc/self/cgroup": "7:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n", "proc/self/mountinfo": mount1,
				"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "5000000\n",
				"sys/fs/cgroup/memory/a/memory.limit_in_bytes":   "9223372036854771712\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes":     "9223372036854771712\n",
			}, 5000000, "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
		},
		"version 1, no limit": {
			files: map[string]string{
				"proc/self/cgroup": "4:memory:/a\n", "proc/self/mountinfo": mount1,
				"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
			},
		},
		"version 1, a container that sees its own group only": {
			map[string]string{
				"proc/self/cgroup":                           "4:memory:/docker/abc\n",
				"proc/self/mountinfo":                        "32 20 0:27 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "6000000\n",
			}, 6000000, "/sys/fs/cgroup/memory/memory.limit_in_bytes",
		},
		"mounted elsewhere, with a space": {
			map[string]string{
				"proc/self/cgroup":       "0::/a\n",
				"proc/self/mountinfo":    "30 20 0:25 / /my\\040groups rw - cgroup2 none rw\n",
				"my groups/a/memory.max": "7000000\n",
			}, 7000000, "/my groups/a/memory.max",
		},
	} {
		got, ok, err := MemoryLimit(system(c.files))
		if err != nil || ok != (c.want > 0) || ok && (got.Bytes != c.want || got.File != c.file) {
			t.Errorf("%s: %+v %v %v, want %d of %s", name, got, ok, err, c.want, c.file)
		}
	}
}

func TestMemoryLimitUnreadable(t *testing.T) {
	if _, _, err := MemoryLimit(system(map[string]string{"proc/self/cgroup": "0::/\n"})); err == nil {
		t.Error("no mountinfo, and no error")
	}
}

// Whatever this machine is, reading it is no error.
func TestThisMachine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("control groups are Linux's")
	}
	l, ok, err := MemoryLimit(os.DirFS("/"))
	if err != nil || ok && l.Bytes <= 0 {
		t.Errorf("%+v %v %v", l, ok, err)
	}
	t.Log(l, ok)
}
