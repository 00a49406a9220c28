//go:build !faults

package plant

// On reports whether the named bug is planted in this process. It is constant
// false in builds without the tag faults.
func On(string) bool { return false }
