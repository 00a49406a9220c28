package node

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/tidings-io/tidings/internal/cgroup"
	"github.com/tidings-io/tidings/internal/front/admin"
	"github.com/tidings-io/tidings/internal/host"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/version"
)

// hostFigures are what this node has of its machine.
func (n *Node) hostFigures() admin.HostFigures {
	p, log := host.Self(), n.wal.Stats()
	syncs := logSync(&log)
	h := admin.HostFigures{
		Version: version.String(), FeatureLevel: meta.FeatureLevel, PID: os.Getpid(), DataPath: n.cfg.DataPath,
		DiskFree: n.reserve.free.Load(), DiskReserve: n.reserve.limit.Load(), SyncP50Ms: syncs.P50Ms, SyncP99Ms: syncs.P99Ms,
		OpenFiles: p.OpenFiles, OpenFilesMax: p.OpenFilesMax, Resident: p.Resident, Certificates: n.certificates(),
	}
	if abs, err := filepath.Abs(n.cfg.DataPath); err == nil {
		h.DataPath = abs
	}
	h.Filesystem = host.Filesystem(h.DataPath)
	if limit, found, err := cgroup.MemoryLimit(os.DirFS("/")); err == nil && found {
		h.GroupLimit = limit.Bytes
	}
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 { // only asks
		h.MemoryLimit = limit
	}
	h.ClockUs = time.Now().UnixMicro()
	return h
}

// certificates are those that the node uses, with the ends of those in force.
func (n *Node) certificates() []admin.Certificate {
	list := []admin.Certificate{}
	if f := n.secure.files; f != nil {
		list = append(list, admin.Certificate{
			Use: "clients", File: n.cfg.TLSCert, ExpiresAt: f.current().Certificates[0].Leaf.NotAfter.UnixMilli(),
		})
	}
	if n.member == nil {
		return list
	}
	authority := admin.Certificate{Use: "cluster_authority", File: n.cfg.ClusterCA}
	if until, err := CertificatesExpire(n.cfg.ClusterCA); err != nil {
		authority.Error = err.Error()
	} else {
		authority.ExpiresAt = until.UnixMilli()
	}
	return append(list, admin.Certificate{
		Use: "cluster", File: n.cfg.ClusterCert, ExpiresAt: n.member.credentials.Expires().UnixMilli(),
	}, authority)
}

// CertificatesExpire is when the first of the certificates in a PEM file ends.
func CertificatesExpire(file string) (first time.Time, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return first, err
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return first, err
		}
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	if first.IsZero() {
		return first, errors.New("there is no certificate in " + file)
	}
	return first, nil
}
