package host

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

func self() (p Process) {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		p.OpenFilesMax = int64(min(limit.Cur, 1<<62))
	}
	if dir, err := os.Open("/proc/self/fd"); err == nil {
		if names, err := dir.Readdirnames(-1); err == nil {
			p.OpenFiles = int64(len(names)) - 1 // the folder itself
		}
		_ = dir.Close() // it was only read
	}
	text, err := os.ReadFile("/proc/self/statm")
	if fields := bytes.Fields(text); err == nil && len(fields) > 1 {
		if pages, err := strconv.ParseInt(string(fields[1]), 10, 64); err == nil {
			p.Resident = pages * int64(os.Getpagesize())
		}
	}
	return p
}

// magic are the numbers of file systems, from Linux' linux/magic.h.
var magic = map[int64]string{
	0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x2fc12fc1: "zfs", 0xf2f52010: "f2fs",
	0x01021994: "tmpfs", 0x858458f6: "ramfs", 0x794c7630: "overlay",
	0x6969: "nfs", 0xff534d42: "cifs", 0xfe534d42: "smb2", 0x517b: "smb", 0x65735546: "fuse", 0x00c36400: "ceph", 0x01021997: "9p",
}

func filesystem(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return ""
	}
	return magic[int64(s.Type)&0xffffffff] //nolint:unconvert // 32 bits elsewhere
}
