//go:build !faults

package vfs

// Default is the file system a process works on: OS. Builds with the tag
// faults let the environment choose another.
func Default() FS { return OS{} }
