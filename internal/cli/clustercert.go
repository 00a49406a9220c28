package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/transport"
)

// authorityYears is how long the authority of a cluster is good.
const authorityYears = 10

// maxCertDays is what --days can be: as long as the authority.
const maxCertDays = authorityYears * 365

// certFlags are the flags of `cluster cert`.
type certFlags struct {
	dir   string
	days  int
	force bool
	json  bool
}

// certRequest is a node that gets a certificate.
type certRequest struct {
	name  string
	hosts []string
}

// certReport is what `cluster cert` made, as --json prints it.
type certReport struct {
	CA    caReport         `json:"ca"`
	Nodes []nodeCertReport `json:"nodes"`
}

type caReport struct {
	Cert    string    `json:"cert"`
	Key     string    `json:"key"`
	Made    bool      `json:"made"` // false: it was there
	Expires time.Time `json:"expires"`
}

type nodeCertReport struct {
	Name    string    `json:"name"`
	Cert    string    `json:"cert"`
	Key     string    `json:"key"`
	Hosts   []string  `json:"hosts"`
	Expires time.Time `json:"expires"`
	Flags   []string  `json:"serve_flags"`
}

func newClusterCert(s streams) *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use: "cert NAME[=HOST,...]...", Short: "Make the certificates with which nodes trust each other",
		Args: args(cobra.MinimumNArgs(1)),
		Long: `Make a certificate and a key for each node of a cluster, and before the first the
authority that signs them. Nodes talk to each other over TLS only, and know each
other by the name in the certificate; NAME is what ` + "`serve --node`" + ` gets.

The folder then holds ca.crt, which every node needs, NAME.crt and NAME.key, which
that node needs, and ca.key, which no node needs: whoever has it can make nodes, so
keep it where you keep secrets. An authority that is there is used again, so that
nodes can be added and certificates renewed (--force); running nodes take renewed
files by themselves.

Hosts are the DNS names and addresses of the node, for other programs that connect
to it by TLS; without them they are localhost, 127.0.0.1, ::1 and the name.`,
		Example: `  tidings cluster cert --dir certs n1 n2 n3
  tidings cluster cert --dir certs n1=n1.example.com,10.0.0.1 n2=n2.example.com
  tidings cluster cert --dir certs --force --days 90 n2`,
		RunE: func(_ *cobra.Command, words []string) error {
			requests, err := parseCertRequests(words)
			if err != nil {
				return err
			}
			if f.days < 1 || f.days > maxCertDays {
				return usagef("--days %d: want 1 to %d", f.days, maxCertDays)
			}
			report, err := f.issue(requests, time.Now())
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(s.out, report)
			}
			return report.print(s.out, s.err)
		},
	}
	cmd.Flags().StringVar(&f.dir, "dir", "./tidings-certs", "folder for the files; made when it is not there")
	cmd.Flags().IntVar(&f.days, "days", 365, "days that the nodes' certificates are good")
	cmd.Flags().BoolVar(&f.force, "force", false, "replace certificates and keys of nodes that are there (never the authority)")
	jsonFlag(cmd, &f.json)
	return cmd
}

// dnsName is a host name, or a wildcard for one level.
var dnsName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`)

func parseCertRequests(words []string) ([]certRequest, error) {
	var requests []certRequest
	for _, word := range words {
		name, list, given := strings.Cut(word, "=")
		switch {
		case !transport.ValidName(name):
			return nil, usagef("%q is not a node name (letters, digits, '.', '_', '-', at most 64, beginning with a letter or digit)", name)
		case strings.EqualFold(name, "ca"):
			return nil, usagef("a node can't be called %q: %s.key is the authority's key", name, name)
		case slices.ContainsFunc(requests, func(r certRequest) bool { return strings.EqualFold(r.name, name) }):
			return nil, usagef("node %s is named twice", name)
		}
		hosts := []string{"localhost", "127.0.0.1", "::1"}
		if dnsName.MatchString(name) {
			hosts = append(hosts, name)
		}
		if given {
			hosts = strings.Split(list, ",")
		}
		for _, h := range hosts {
			if net.ParseIP(h) == nil && (len(h) > 253 || !dnsName.MatchString(h)) {
				return nil, usagef("%q in %q is neither a host name nor an address", h, word)
			}
		}
		requests = append(requests, certRequest{name, hosts})
	}
	return requests, nil
}

// issue writes what was asked for. Nothing is written when anything is in the way.
func (f *certFlags) issue(requests []certRequest, now time.Time) (*certReport, error) {
	if !f.force {
		for _, r := range requests {
			for _, ext := range []string{".crt", ".key"} {
				if err := f.absent(r.name + ext); err != nil {
					return nil, err
				}
			}
		}
	}
	authority, report, err := f.authority(now)
	if err != nil {
		return nil, err
	}
	for _, r := range requests {
		cert, key, err := authority.Issue(r.name, r.hosts, now, time.Duration(f.days)*24*time.Hour)
		if err != nil {
			return nil, err
		}
		made := nodeCertReport{Name: r.name, Cert: f.path(r.name + ".crt"), Key: f.path(r.name + ".key"), Hosts: r.hosts}
		made.Flags = []string{"--node=" + r.name, "--cluster-ca=" + report.CA.Cert, "--cluster-cert=" + made.Cert, "--cluster-key=" + made.Key}
		ca, _, err := authority.PEM()
		if err != nil {
			return nil, err
		}
		loaded, err := transport.NewCredentials(ca, cert, key) // what a node will do with it
		if err != nil {
			return nil, err
		}
		made.Expires = loaded.Expires().UTC()
		if err := errors.Join(writeWhole(made.Key, key, 0o600), writeWhole(made.Cert, cert, 0o644)); err != nil {
			return nil, err
		}
		report.Nodes = append(report.Nodes, made)
	}
	return report, nil
}

func (f *certFlags) path(name string) string { return filepath.Join(f.dir, name) }

// absent checks that a node's file can be made.
func (f *certFlags) absent(name string) error {
	switch _, err := os.Lstat(f.path(name)); {
	case err == nil:
		return failf(exitConflict, "%s is there; --force replaces it", f.path(name))
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look for %s: %w", f.path(name), err)
	}
	return nil
}

// authority reads the folder's authority, or makes one in a folder that has none.
func (f *certFlags) authority(now time.Time) (*transport.Authority, *certReport, error) {
	report := &certReport{CA: caReport{Cert: f.path("ca.crt"), Key: f.path("ca.key")}}
	cert, certErr := os.ReadFile(report.CA.Cert)
	key, keyErr := os.ReadFile(report.CA.Key)
	noCert, noKey := errors.Is(certErr, fs.ErrNotExist), errors.Is(keyErr, fs.ErrNotExist)
	switch {
	case noCert && noKey:
		return f.newAuthority(report, now)
	case noKey && certErr == nil:
		return nil, nil, failf(exitNotFound, "%s is there and %s is not: bring the authority's key here, or use another folder for a new authority", report.CA.Cert, report.CA.Key)
	case noCert && keyErr == nil:
		return nil, nil, failf(exitNotFound, "%s is there and %s is not: bring the authority's certificate here, or use another folder for a new authority", report.CA.Key, report.CA.Cert)
	case certErr != nil || keyErr != nil:
		return nil, nil, fmt.Errorf("read authority: %w", errors.Join(certErr, keyErr))
	}
	a, err := transport.ParseAuthority(cert, key)
	if err != nil {
		return nil, nil, fmt.Errorf("%s, %s: %w", report.CA.Cert, report.CA.Key, err)
	}
	report.CA.Expires = a.Expires().UTC()
	return a, report, nil
}

func (f *certFlags) newAuthority(report *certReport, now time.Time) (*transport.Authority, *certReport, error) {
	a, err := transport.NewAuthority(now, authorityYears*365*24*time.Hour)
	if err != nil {
		return nil, nil, err
	}
	cert, key, err := a.PEM()
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make folder: %w", err)
	}
	if err := errors.Join(writeWhole(report.CA.Key, key, 0o600), writeWhole(report.CA.Cert, cert, 0o644)); err != nil {
		return nil, nil, err
	}
	report.CA.Made, report.CA.Expires = true, a.Expires().UTC()
	return a, report, nil
}

// writeWhole replaces a file in one step, so that a running node never reads half
// of it.
func writeWhole(name string, text []byte, mode fs.FileMode) (err error) {
	file, err := os.CreateTemp(filepath.Dir(name), ".tidings-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(file.Name()))
		}
	}()
	_, err = file.Write(text)
	if err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}

func (r *certReport) print(out, talk io.Writer) error {
	rows := [][]string{}
	if r.CA.Made {
		rows = append(rows, []string{"(authority)", r.CA.Cert, r.CA.Key, r.CA.Expires.Format(time.DateOnly), "-"})
	}
	for _, n := range r.Nodes {
		rows = append(rows, []string{n.Name, n.Cert, n.Key, n.Expires.Format(time.DateOnly), strings.Join(n.Hosts, ",")})
	}
	if err := table(out, "node certificate key expires hosts", rows); err != nil {
		return err
	}
	fmt.Fprintln(talk, "\nStart each node with its own files:")
	for _, n := range r.Nodes {
		fmt.Fprintf(talk, "  tidings serve %s\n", strings.Join(n.Flags, " "))
	}
	fmt.Fprintf(talk, "Copy %s, NAME.crt and NAME.key to node NAME; keep %s to yourself.\n", r.CA.Cert, r.CA.Key)
	return nil
}
