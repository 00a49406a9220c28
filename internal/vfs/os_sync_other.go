//go:build !linux

package vfs

import "os"

// dataSync is a full sync where fdatasync is missing. On darwin os.File.Sync
// is F_FULLFSYNC: plain fsync leaves the bytes in the drive's cache there.
func dataSync(f *os.File) error { return f.Sync() }
