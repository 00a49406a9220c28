package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/front/admin"
	"github.com/tidings-io/tidings/internal/host"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/vfs"
)

// start looks at what a node with these settings would find when it starts.
func (o *doctor) start(ctx context.Context, c *config.Config) {
	dir := c.DataPath
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	o.out.DataPath = dir
	running := inUse(dir)
	if at := o.folder(c, dir, running); at != "" {
		if u, err := vfs.Default().Usage(filepath.ToSlash(at)); err == nil {
			o.disk("", u.Free, node.DiskReserve(c, u.Total))
		}
		o.filesystem("", host.Filesystem(at))
		o.timeDisk(ctx, "", at)
	}
	if !running { // its ports are busy then, and this shell's limits are not its own
		o.ports(c)
		p := host.Self()
		o.openFiles("", p.OpenFiles, p.OpenFilesMax)
	}
	o.files(c)
}

// folder judges the data folder, and says which one there is to measure: the
// nearest that is there; empty for none.
func (o *doctor) folder(c *config.Config, dir string, running bool) string {
	const check = "data_path"
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		parent := filepath.Dir(dir)
		for ; parent != filepath.Dir(parent); parent = filepath.Dir(parent) {
			if _, err := os.Stat(parent); err == nil {
				break
			}
		}
		o.out.add(checkOK, check, "", "", "%s is not there yet; a start makes it", dir)
		return parent
	}
	switch {
	case err != nil:
		o.out.add(checkFail, check, "", "run it as a user who may look there", "%s can't be looked at: %v", dir, err)
		return ""
	case !info.IsDir():
		o.out.add(checkFail, check, "", "choose another with --data-path", "%s is no folder", dir)
		return ""
	}
	if err := node.CheckDataPath(vfs.Default(), filepath.ToSlash(dir), c.Seeds != ""); err != nil {
		o.out.add(checkFail, check, "", "start it as before, or choose another folder with --data-path", "%v", err)
		return dir
	}
	switch _, err := os.Stat(filepath.Join(dir, "nsqd.dat")); {
	case running:
		o.out.add(checkOK, check, "", "", "%s is in use by a running node", dir)
	case err == nil:
		o.out.add(checkWarn, check, "", "`tidings import nsqd "+dir+"` brings them into a running node", "%s holds an nsqd's messages, which a node here would not deliver", dir)
	default:
		o.out.add(checkOK, check, "", "", "%s can be used", dir)
	}
	return dir
}

// How much the disk is timed.
const (
	timedSyncs = 100
	timedFor   = 500 * time.Millisecond
	timedBytes = 4096
)

// timeDisk writes and syncs a small file in dir for a moment, and removes it.
func (o *doctor) timeDisk(ctx context.Context, name, dir string) {
	took, err := timeSyncs(ctx, dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		o.out.add(checkWarn, "disk_sync", name, "run the doctor as the node's user", "%s can't be written by this user: the disk is not timed", dir)
	case err != nil:
		o.out.add(checkFail, "disk_sync", name, "look at the disk and at the system's log", "writing to %s fails: %v", dir, err)
	case len(took) > 0:
		slices.Sort(took)
		o.syncs(name, ms(took[len(took)/2]), ms(took[len(took)-1]), fmt.Sprintf("of %d in %s", len(took), dir))
	}
}

func timeSyncs(ctx context.Context, dir string) (took []time.Duration, err error) {
	reserved, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return nil, err
	}
	name := reserved.Name()
	defer func() { err = errors.Join(err, os.Remove(name)) }()
	if err := reserved.Close(); err != nil {
		return nil, err
	}
	f, err := vfs.Default().OpenReadWrite(filepath.ToSlash(name)) // as the log is written
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	block := make([]byte, timedBytes)
	for begun := time.Now(); len(took) < timedSyncs && time.Since(begun) < timedFor && ctx.Err() == nil; {
		at := time.Now()
		if _, err := f.WriteAt(block, 0); err != nil {
			return nil, err
		}
		if err := f.SyncData(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(at))
	}
	if len(took) > 1 {
		took = took[1:] // the first makes the file's size durable too
	}
	return took, nil
}

// ports tries the addresses that a start would listen on.
func (o *doctor) ports(c *config.Config) {
	free := 0
	for _, a := range listened(c) {
		if a.addr == "" || config.IsSocketPath(a.addr) {
			continue
		}
		l, err := net.Listen("tcp", a.addr)
		if err == nil {
			_ = l.Close() // it was only tried
			free++
			continue
		}
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err
		}
		fix := "stop what listens there (`ss -ltnp` names it), or choose another with --" + a.flag
		if !errors.Is(err, syscall.EADDRINUSE) {
			fix = "choose another with --" + a.flag
		}
		o.out.add(checkFail, "ports", "", fix, "--%s %s: %v", a.flag, a.addr, err)
	}
	if free > 0 {
		o.out.add(checkOK, "ports", "", "", "%d addresses are free", free)
	}
}

type listenAddress struct{ flag, addr string }

// listened are the addresses of a node with these settings.
func listened(c *config.Config) []listenAddress {
	list := []listenAddress{
		{"tcp-address", c.TCPAddress},
		{"http-address", c.HTTPAddress},
		{"admin-address", c.AdminAddress},
		{"lookup-tcp-address", c.LookupTCPAddress},
		{"lookup-http-address", c.LookupHTTPAddress},
		{"nsqadmin-http-address", c.NSQAdminHTTPAddress},
	}
	if c.TLSOffered() {
		list = append(list, listenAddress{"https-address", c.HTTPSAddress})
	}
	if c.Seeds != "" {
		list = append(list, listenAddress{"cluster-address", c.ClusterAddress})
	}
	return list
}

// files judges the certificates that the settings name.
func (o *doctor) files(c *config.Config) {
	for _, f := range []struct{ use, file string }{
		{"clients", c.TLSCert},
		{"cluster", c.ClusterCert},
		{"cluster_authority", c.ClusterCA},
	} {
		if f.file == "" {
			continue
		}
		until, err := node.CertificatesExpire(f.file)
		if err != nil {
			o.out.add(checkFail, "certificate_"+f.use, "", "name a PEM file with a certificate", "%v", err)
			continue
		}
		o.certificate("", &admin.Certificate{Use: f.use, File: f.file, ExpiresAt: until.UnixMilli()})
	}
}
