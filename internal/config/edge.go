package config

import (
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"time"
)

// Edge holds the settings of `tidings edge`; the tags are those of Config.
type Edge struct {
	Upstream     List   `name:"upstream" default:"" help:"nodes to forward to: HOST:PORT of their HTTP API, https:// before it for TLS; the flag may be repeated"`
	DataPath     string `name:"data-path" default:"./tidings-edge" help:"folder of the spool"`
	TCPAddress   string `name:"tcp-address" default:"127.0.0.1:4150" help:"address for publishers by NSQ's TCP protocol, HOST:PORT"`
	HTTPAddress  string `name:"http-address" default:"127.0.0.1:4151" help:"address for publishers by nsqd's HTTP API, HOST:PORT"`
	HTTPSAddress string `name:"https-address" default:"127.0.0.1:4152" help:"address for publishers by nsqd's HTTP API over TLS; used with tls-cert only (empty: not served)"`
	AdminAddress string `name:"admin-address" default:"127.0.0.1:4180" help:"address for /metrics and health (empty: not served)"`
	SpoolSize    Bytes  `name:"spool-size" default:"1GiB" min:"1MiB" help:"most bytes of the spool; beyond it publishes are refused"`
	DiskReserve  Bytes  `name:"disk-reserve" default:"256MiB" min:"0" help:"free disk space at which publishing stops (0: none)"`

	MaxMsgSize      Bytes         `name:"max-msg-size" default:"1MiB" min:"1" help:"largest message body; at most what the nodes take"`
	MaxBodySize     Bytes         `name:"max-body-size" default:"5MiB" min:"1" max:"1GiB" help:"largest command body"`
	MaxDeferTimeout time.Duration `name:"max-defer-timeout" default:"8760h" min:"0s" help:"longest delay of a deferred publish"`

	TLSCert             string `name:"tls-cert" default:"" help:"PEM file with the certificate that publishers see, and those between it and its authority (empty: no TLS)"`
	TLSKey              string `name:"tls-key" default:"" help:"PEM file with the key of tls-cert"`
	TLSClientAuthPolicy string `name:"tls-client-auth-policy" default:"" help:"require: TLS clients show a certificate; require-verify: one that tls-root-ca-file signed; either makes TLS required"`
	TLSRootCAFile       string `name:"tls-root-ca-file" default:"" help:"PEM file with the authorities for client certificates and for auth servers (empty: the system's)"`
	TLSRequired         string `name:"tls-required" default:"false" bool:"true" help:"refuse publishers without TLS: true, false, or tcp-https, which leaves http-address open"`
	TLSMinVersion       string `name:"tls-min-version" default:"tls1.2" help:"oldest version of TLS: tls1.0, tls1.1, tls1.2 or tls1.3"`

	AuthHTTPAddresses List   `name:"auth-http-address" key:"auth_http_addresses" default:"" help:"auth servers, HOST:PORT or a URL, that are asked what a publisher may do; the flag may be repeated (empty: everybody may do everything)"`
	AuthHTTPMethod    string `name:"auth-http-request-method" default:"get" help:"how auth servers are asked: get or post"`
	HTTPAuth          bool   `name:"http-auth" default:"true" help:"let requests to nsqd's HTTP API take the same grants as TCP commands, if there are auth servers; /ping takes none"`

	LogLevel  string `name:"log-level" default:"info" help:"debug, info, warn or error"`
	LogFormat string `name:"log-format" default:"auto" help:"text, json, or auto (text on a terminal)"`
}

// Fields lists the settings of e; setting a Field changes e.
func (e *Edge) Fields() []Field { return fieldsOf(reflect.ValueOf(e).Elem(), false) }

// DefaultEdge are the defaults. They are not enough: there is nobody to forward to.
func DefaultEdge() Edge {
	var e Edge
	setDefaults(e.Fields())
	return e
}

// LoadEdge is Load for `tidings edge`; src.NSQD does not count.
func LoadEdge(src Source) (e Edge, warnings []string, err error) {
	e = DefaultEdge()
	src.NSQD = false
	if warnings, err = load(src, e.Fields(), nil); err != nil {
		return e, nil, err
	}
	return e, warnings, e.Validate()
}

// Clients are the settings of TLS and AUTH for publishers as a node has them; the rest
// of the Config is as usual.
func (e *Edge) Clients() Config {
	c := Default()
	c.TLSCert, c.TLSKey, c.TLSRootCAFile = e.TLSCert, e.TLSKey, e.TLSRootCAFile
	c.TLSClientAuthPolicy, c.TLSRequired, c.TLSMinVersion = e.TLSClientAuthPolicy, e.TLSRequired, e.TLSMinVersion
	c.AuthHTTPAddresses, c.AuthHTTPMethod, c.HTTPAuth = e.AuthHTTPAddresses, e.AuthHTTPMethod, e.HTTPAuth
	return c
}

// Validate reports the first setting that can't work, naming its flag.
func (e *Edge) Validate() error {
	if e.DataPath == "" {
		return errors.New("--data-path: want a folder")
	}
	for _, f := range e.Fields() {
		if err := f.check(); err != nil {
			return fmt.Errorf("--%s %s: %w", f.Name, f, err)
		}
	}
	for _, a := range []struct{ name, addr string }{{"tcp-address", e.TCPAddress}, {"http-address", e.HTTPAddress}, {"https-address", e.HTTPSAddress}, {"admin-address", e.AdminAddress}} {
		if a.addr == "" && (a.name == "admin-address" || a.name == "https-address") {
			continue
		}
		if err := checkAddress(a.addr); err != nil {
			return fmt.Errorf("--%s %q: %w", a.name, a.addr, err)
		}
	}
	clients := e.Clients()
	if err := clients.validateSecurity(); err != nil {
		return err
	}
	if len(e.Upstream) == 0 {
		return errors.New("--upstream: want the HTTP address of a node or more, such as 10.0.0.5:4151")
	}
	for _, addr := range e.Upstream {
		if err := checkNode(addr); err != nil {
			return fmt.Errorf("--upstream %q: %w", addr, err)
		}
	}
	if e.MaxMsgSize > e.MaxBodySize {
		return fmt.Errorf("--max-msg-size %s: larger than --max-body-size %s", e.MaxMsgSize, e.MaxBodySize)
	}
	return (&Config{LogLevel: e.LogLevel, LogFormat: e.LogFormat}).validateLog()
}

// checkNode accepts HOST:PORT, with or without http:// or https:// before it.
func checkNode(addr string) error {
	rest := strings.TrimPrefix(strings.TrimPrefix(addr, "http://"), "https://")
	if err := checkAddress(rest); err != nil {
		return err
	}
	if u, err := url.Parse("http://" + rest); err != nil || u.Host != rest || u.Hostname() == "" {
		return errors.New("want HOST:PORT, such as 10.0.0.5:4151 or https://10.0.0.5:4152")
	}
	return nil
}
