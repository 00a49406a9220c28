package bench

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// fileSystem names the file system under dir.
func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown file system"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs",
	}
	if n, ok := names[int64(st.Type)]; ok { //nolint:unconvert // the type differs between architectures
		return n
	}
	return fmt.Sprintf("file system 0x%x", st.Type)
}
