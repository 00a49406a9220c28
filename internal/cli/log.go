package cli

import (
	"fmt"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

// logFlags are what the commands on a stopped node's files share.
type logFlags struct {
	dataPath string
	json     bool
}

func (f *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dataPath, "data-path", "./tidings-data", "data folder of a stopped node")
	jsonFlag(cmd, &f.json)
}

// open takes the data folder, so that no node starts on it meanwhile.
func (f *logFlags) open() (fsys vfs.FS, dir string, release func(), err error) {
	fsys = vfs.Default()
	dir = filepath.ToSlash(f.dataPath)
	if _, err := fsys.Stat(path.Join(dir, "NODE")); err != nil {
		return nil, "", nil, failf(exitNotFound, "%s is not a node's data folder: %w; name it with --data-path", f.dataPath, err)
	}
	lock, err := fsys.Lock(path.Join(dir, "LOCK"))
	if err != nil {
		return nil, "", nil, failf(exitConflict, "data folder %s is in use: %w; stop the node first", f.dataPath, err)
	}
	return fsys, dir, func() { lock.Close() }, nil
}

func newLog(s streams) *cobra.Command {
	return parent("log", "Check and mend a stopped node's files", newLogVerify(s), newLogInspect(s), newLogRepair(s))
}

func newLogVerify(s streams) *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use: "verify", Short: "Check every checksum of a stopped node's files", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			fsys, dir, release, err := f.open()
			if err != nil {
				return err
			}
			defer release()
			report, err := verifyAll(fsys, dir)
			if err != nil {
				return err
			}
			if f.json {
				err = printJSON(s.out, report)
			} else {
				err = report.print(s)
			}
			if err == nil && report.Damaged() {
				err = failf(exitFailure, "damage found; `tidings log repair` says what can be done about the write-ahead log")
			}
			return err
		},
	}
	f.add(cmd)
	return cmd
}

func newLogInspect(s streams) *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use: "inspect", Short: "List the frames of a stopped node's write-ahead log", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			fsys, dir, release, err := f.open()
			if err != nil {
				return err
			}
			defer release()
			return wal.Inspect(fsys, path.Join(dir, "wal"), func(fr wal.Frame) error {
				if f.json {
					return printJSONLine(s.out, fr)
				}
				_, err := fmt.Fprintf(s.out, "%s %10d %8d  shard %-3d %-10v term %d index %d\n",
					fr.Segment, fr.Offset, fr.Size, fr.Shard, fr.Kind, fr.Term, fr.Index)
				return err
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newLogRepair(s streams) *cobra.Command {
	var f logFlags
	var yes bool
	cmd := &cobra.Command{
		Use: "repair", Short: "Make a damaged write-ahead log readable again, losing what is damaged", Args: args(cobra.NoArgs),
		Long: `List what would be lost by going on without the damaged part of the write-ahead
log and what follows it. With --yes it is done: the damaged files are moved
aside, nothing is deleted.`,
		RunE: func(*cobra.Command, []string) error {
			fsys, dir, release, err := f.open()
			if err != nil {
				return err
			}
			defer release()
			report, err := wal.Repair(fsys, path.Join(dir, "wal"), yes)
			if err != nil {
				return fmt.Errorf("repair write-ahead log: %w", err)
			}
			if f.json {
				return printJSON(s.out, report)
			}
			printWAL(s.out, report)
			if report.Damage == nil {
				fmt.Fprintln(s.err, "nothing to repair")
			} else if !yes {
				return failf(exitFailure, "nothing was changed; run again with --yes to do it")
			}
			return nil
		},
	}
	f.add(cmd)
	yesFlag(cmd, &yes)
	return cmd
}
