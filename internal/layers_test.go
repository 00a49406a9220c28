// Package internal_test keeps the house in order: imports only go down.
package internal_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tidings-io/tidings/"

// layers lists the packages from the lowest up, as ARCHITECTURE.md draws them.
// A package may import those of lower lines, and none of its own. A name that
// ends in a slash stands for all packages under it.
var layers = [][]string{
	{"internal/record", "internal/fault", "internal/vfs", "internal/plant", "internal/turn", "internal/grow", "internal/version", "internal/cgroup", "internal/host", "internal/latency", "internal/nsqdata"},
	{"internal/wal", "internal/seglog"},
	{"internal/shard", "internal/transport"},
	{"internal/meta", "internal/broker/offsets", "internal/broker/parked", "internal/broker/wire"},
	{"internal/broker/partition", "internal/cluster"},
	{"internal/broker/delivery", "internal/broker/origin", "internal/repair"},
	{"internal/broker"},
	{"internal/telemetry", "internal/telemetry/statsd", "internal/auth", "internal/accept", "internal/spool"},
	{"internal/front/"},
	{"internal/config"},
	{"internal/node", "internal/bench", "internal/tools", "internal/importer", "internal/edge", "internal/top"},
	{"internal/cli"},
	{"cmd/"},
}

// outside are packages that nobody imports: tests, and what keeps go.mod whole.
var outside = []string{"internal", "internal/sim", "internal/sim/", "internal/deps", "internal/nsqdata/nsqdatatest", "test/", "client"}

var (
	// domain has no sockets, and touches files only through vfs.
	domain = []string{
		"internal/record", "internal/wal", "internal/seglog", "internal/shard", "internal/meta", "internal/broker",
		"internal/broker/offsets", "internal/broker/parked", "internal/broker/partition", "internal/broker/delivery", "internal/broker/origin", "internal/broker/wire",
		"internal/repair", "internal/spool",
	}
	forbidden = []string{"net", "net/http", "os", "io/ioutil", "path/filepath"}
	// knowConfig are the edges, which may know how the process is configured.
	knowConfig = []string{"internal/node", "internal/cli", "cmd/tidings"}
)

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var list []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// ours cuts the module's path off; false for somebody else's package.
func ours(path string) (string, bool) { return strings.CutPrefix(path, module) }

func matches(name, pattern string) bool {
	if strings.HasSuffix(pattern, "/") {
		return strings.HasPrefix(name, pattern)
	}
	return name == pattern
}

func matchesAny(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(name, p) })
}

// layer is the line of a package, -1 when it stands on none.
func layer(name string) int {
	return slices.IndexFunc(layers, func(line []string) bool { return matchesAny(name, line) })
}

func TestImportsGoDown(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		name, ok := ours(p.ImportPath)
		if !ok || matchesAny(name, outside) {
			continue
		}
		seen++
		own := layer(name)
		if own < 0 {
			t.Errorf("%s stands in no layer: give it one in internal/layers_test.go", name)
			continue
		}
		for _, imported := range p.Imports {
			to, ok := ours(imported)
			switch {
			case !ok:
			case matchesAny(to, outside):
				t.Errorf("%s imports %s, which is for tests", name, to)
			case layer(to) >= own:
				t.Errorf("%s imports %s, which does not lie below it", name, to)
			}
		}
	}
	if seen < len(layers) {
		t.Errorf("only %d packages were looked at", seen)
	}
}

func TestDomainHasNoSocketsAndNoFiles(t *testing.T) {
	for _, p := range packages(t) {
		name, ok := ours(p.ImportPath)
		if !ok || !slices.Contains(domain, name) {
			continue
		}
		for _, imported := range p.Imports {
			if slices.Contains(forbidden, imported) {
				t.Errorf("%s imports %s", name, imported)
			}
		}
	}
}

func TestOnlyTheEdgesKnowTheConfiguration(t *testing.T) {
	for _, p := range packages(t) {
		name, ok := ours(p.ImportPath)
		if ok && slices.Contains(p.Imports, module+"internal/config") && !slices.Contains(knowConfig, name) {
			t.Errorf("%s imports internal/config; hand it its own options instead", name)
		}
	}
}
