package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
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
	switch _, err := fsys.Stat(path.Join(dir, "NODE")); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", nil, failf(exitNotFound, "%s is not a node's data folder (there is no file NODE in it); name one with --data-path", f.dataPath)
	case err != nil:
		return nil, "", nil, fmt.Errorf("look at data folder: %w", err)
	}
	lock, err := fsys.Lock(path.Join(dir, "LOCK"))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, "", nil, failf(exitConflict, "data folder %s is in use by a running node; stop it first", f.dataPath)
	}
	if err != nil {
		return nil, "", nil, fmt.Errorf("lock data folder %s: %w", f.dataPath, err)
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
		Long: `Read every file of a stopped node and check every checksum: the write-ahead log,
the checkpoints, the topics' segments. Nothing is changed. Exit code 1 means
damage; a torn last write is none, since it was never acknowledged.`,
		Example: `  tidings log verify --data-path /var/lib/tidings`,
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
				err = report.print(s.out)
			}
			switch {
			case err != nil:
				return err
			case report.WAL.Damage != nil:
				return failf(exitFailure, "damage found, the node will not start; `tidings log repair --data-path %s` shows what going on would lose", f.dataPath)
			case report.Damaged:
				return failf(exitFailure, "damage found; the node starts, and never serves what is damaged")
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

// jsonFrame is a frame of the write-ahead log as `log inspect --json` prints it.
type jsonFrame struct {
	Segment string `json:"segment"`
	Offset  int64  `json:"offset"`
	Size    int64  `json:"size"`
	Kind    string `json:"kind"`
	Shard   uint32 `json:"shard"`
	Term    uint64 `json:"term"`
	Index   uint64 `json:"index"`
}

func newLogInspect(s streams) *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use: "inspect", Short: "List the frames of a stopped node's write-ahead log", Args: args(cobra.NoArgs),
		Long: `List the frames of a stopped node's write-ahead log in the order they were
written, up to the first damage: segment, place, size, shard, kind, Raft term and
index. With --json one object a line.`,
		Example: `  tidings log inspect --json | jq 'select(.shard == 3)'`,
		RunE: func(*cobra.Command, []string) error {
			fsys, dir, release, err := f.open()
			if err != nil {
				return err
			}
			defer release()
			out := bufio.NewWriter(s.out)
			err = wal.Inspect(fsys, path.Join(dir, "wal"), func(fr wal.Frame) error {
				if f.json {
					return printJSONLine(out, jsonFrame{fr.Segment, fr.Offset, fr.Size, fmt.Sprint(fr.Kind), fr.Shard, fr.Term, fr.Index})
				}
				_, err := fmt.Fprintf(out, "%s %10d %8d  shard %-3d %-10v term %d index %d\n",
					fr.Segment, fr.Offset, fr.Size, fr.Shard, fr.Kind, fr.Term, fr.Index)
				return err
			})
			return errors.Join(out.Flush(), err)
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
aside, nothing is deleted. Without damage nothing is changed either way.`,
		Example: `  tidings log repair
  tidings log repair --yes`,
		RunE: func(*cobra.Command, []string) error {
			fsys, dir, release, err := f.open()
			if err != nil {
				return err
			}
			defer release()
			in, err := wal.Repair(fsys, path.Join(dir, "wal"), yes)
			if err != nil {
				return fmt.Errorf("repair write-ahead log: %w", err)
			}
			report := reportWAL(in)
			if f.json {
				err = printJSON(s.out, report)
			} else {
				err = report.print(s.out)
			}
			switch {
			case err != nil:
				return err
			case report.Damage == nil:
				fmt.Fprintln(s.err, "nothing to repair")
			case !yes:
				return failf(exitFailure, "nothing was changed; copy the folder, then run again with --yes to go on without what is lost")
			default:
				fmt.Fprintln(s.err, "repaired; what was moved aside can be removed when nobody needs it")
			}
			return nil
		},
	}
	f.add(cmd)
	yesFlag(cmd, &yes)
	return cmd
}
