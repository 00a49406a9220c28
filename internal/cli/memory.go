package cli

import (
	"io/fs"
	"log/slog"
	"math"
	"os"

	"github.com/tidings-io/tidings/internal/cgroup"
	"github.com/tidings-io/tidings/internal/config"
)

// limitMemory tells Go's runtime how much memory it may use before it collects
// garbage harder: a node that may have 512 MiB must not be killed over garbage.
// A tenth of a control group's limit is left for what the runtime does not
// count, such as stacks in the kernel and dirty pages of files. set is
// debug.SetMemoryLimit, root the file system from / on.
func limitMemory(logger *slog.Logger, cfg config.Config, root fs.FS, set func(int64) int64) error {
	size, auto, err := cfg.MemoryLimitBytes()
	switch {
	case err != nil:
		return err
	case auto && os.Getenv("GOMEMLIMIT") != "":
		logger.Info("memory limit", "bytes", set(-1), "from", "GOMEMLIMIT")
		return nil
	case !auto && size == 0:
		set(math.MaxInt64)
		return nil
	case !auto:
		set(int64(size))
		logger.Info("memory limit", "bytes", int64(size), "from", "memory-limit")
		return nil
	}
	limit, found, err := cgroup.MemoryLimit(root)
	if err != nil {
		// It is a precaution: a node without it runs as it always did.
		logger.Warn("memory limit of the control group can't be read; --memory-limit sets one", "error", err)
		return nil
	}
	if !found {
		return nil
	}
	n := limit.Bytes / 10 * 9
	set(n)
	logger.Info("memory limit", "bytes", n, "from", limit.File, "control_group_bytes", limit.Bytes)
	return nil
}
