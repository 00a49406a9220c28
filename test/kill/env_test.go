//go:build linux

package kill

import (
	"os"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/test/rig"
)

// plainBinary is the tidings binary under test; tests that need it say so by name
// when they can't run. test/kill/run refuses a run in which that happened.
func plainBinary(t *testing.T) string {
	t.Helper()
	return rig.FromEnv(t, "KILL_BINARY", "test/kill/run")
}

// faultsBinary is the binary built with -tags faults.
func faultsBinary(t *testing.T) string {
	t.Helper()
	return rig.FromEnv(t, "KILL_FAULTS", "test/kill/run")
}

// node is a node on loopback.
type node struct{ *rig.Node }

// newNode describes a node on dir; the process is started by Start.
func newNode(bin, dir string, flags ...string) *node {
	return &node{rig.NewNode(bin, dir, append(flags, strings.Fields(os.Getenv("KILL_FLAGS"))...)...)}
}

// dataDir makes a folder that survives the test when it failed.
func dataDir(t *testing.T) string {
	t.Helper()
	return rig.DataDir(t, os.Getenv("KILL_KEEP"))
}
