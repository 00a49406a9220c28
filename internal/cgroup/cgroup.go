// Package cgroup reads the memory limit that Linux sets a process through the
// control groups it is in, as containers and service managers use them.
package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Limit is a limit and where it stands.
type Limit struct {
	Bytes int64
	File  string // such as /sys/fs/cgroup/system.slice/tidings.service/memory.max
}

// unlimited is above every real limit. Version 1 says "no limit" with a number
// just below 1<<63.
const unlimited = 1 << 62

// hierarchy is a version of control groups as far as memory goes.
type hierarchy struct {
	mount string // kind of file system
	file  string // holds the limit of one group
	// mine says whether a line of /proc/self/cgroup, or the options of a mount,
	// belong to it.
	mine func(number, controllers string) bool
}

var errAbsent = errors.New("no such control group")

func hierarchies() []hierarchy {
	memory := func(list string) bool {
		for name := range strings.SplitSeq(list, ",") {
			if name == "memory" {
				return true
			}
		}
		return false
	}
	return []hierarchy{
		{"cgroup2", "memory.max", func(number, _ string) bool { return number == "0" }},
		{"cgroup", "memory.limit_in_bytes", func(number, controllers string) bool { return number != "0" && memory(controllers) }},
	}
}

// MemoryLimit returns the smallest memory limit of the groups that the process
// is in, up to the root as far as it can be seen; false when there is none.
// root is the file system from / on (os.DirFS("/")). An error is a limit that
// could not be read; a system without control groups has no limit.
func MemoryLimit(root fs.FS) (Limit, bool, error) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return Limit{}, false, nil
	}
	if err != nil {
		return Limit{}, false, err
	}
	mounts, err := fs.ReadFile(root, "proc/self/mountinfo")
	if err != nil {
		return Limit{}, false, err
	}
	least := Limit{Bytes: unlimited}
	for _, h := range hierarchies() {
		group, ok := h.group(groups)
		if !ok {
			continue
		}
		top, leaf, err := h.folder(mounts, group)
		if errors.Is(err, errAbsent) {
			continue
		}
		if err := walk(root, top, leaf, h.file, &least); err != nil {
			return Limit{}, false, err
		}
	}
	return least, least.Bytes < unlimited, nil
}

// group finds the process's group in /proc/self/cgroup, whose lines are
// NUMBER:CONTROLLERS:PATH.
func (h hierarchy) group(text []byte) (string, bool) {
	for line := range bytes.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(f) == 3 && h.mine(f[0], f[1]) {
			return path.Clean("/" + f[2]), true
		}
	}
	return "", false
}

// folder finds where the group is mounted: the topmost folder that can be seen,
// and the group's own. In a container the mount often begins at the group.
func (h hierarchy) folder(mounts []byte, group string) (top, leaf string, err error) {
	err = errAbsent
	for s := bufio.NewScanner(bytes.NewReader(mounts)); s.Scan(); {
		// ID PARENT DEVICE ROOT MOUNTPOINT OPTIONS [TAG…] - TYPE SOURCE OPTIONS
		left, right, _ := strings.Cut(s.Text(), " - ")
		f, t := strings.Fields(left), strings.Fields(right)
		if len(f) < 5 || len(t) < 3 || t[0] != h.mount || h.mount == "cgroup" && !h.mine("", t[2]) {
			continue
		}
		from, at := unescape(f[3]), unescape(f[4])
		below, ok := strings.CutPrefix(group+"/", strings.TrimSuffix(from, "/")+"/")
		if ok {
			return at, path.Join(at, below), nil
		}
		// A group outside of what is mounted: the mount is the nearest known.
		top, leaf, err = at, at, nil
	}
	return top, leaf, err
}

// unescape undoes the kernel's octal escapes of white space in mountinfo.
func unescape(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(text)
}

// walk lowers least to the limits from leaf up to top. Groups without the file
// (the root group, one without the controller) set none.
func walk(root fs.FS, top, leaf, file string, least *Limit) error {
	for dir := leaf; ; dir = path.Dir(dir) {
		name := path.Join(dir, file)
		text, err := fs.ReadFile(root, strings.TrimPrefix(name, "/"))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		default:
			if n, ok := parse(text); ok && n < least.Bytes {
				*least = Limit{n, name}
			}
		}
		if dir == top || dir == "/" {
			return nil
		}
	}
}

// parse reads a limit; "max" and numbers that mean the same are none.
func parse(text []byte) (int64, bool) {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	return n, err == nil && n > 0 && n < unlimited
}
