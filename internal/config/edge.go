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
	AdminAddress string `name:"admin-address" default:"127.0.0.1:4180" help:"address for /metrics and health (empty: not served)"`
	SpoolSize    Bytes  `name:"spool-size" default:"1GiB" min:"1MiB" help:"most bytes of the spool; beyond it publishes are refused"`
	DiskReserve  Bytes  `name:"disk-reserve" default:"256MiB" min:"0" help:"free disk space at which publishing stops (0: none)"`

	MaxMsgSize      Bytes         `name:"max-msg-size" default:"1MiB" min:"1" help:"largest message body; at most what the nodes take"`
	MaxBodySize     Bytes         `name:"max-body-size" default:"5MiB" min:"1" max:"1GiB" help:"largest command body"`
	MaxDeferTimeout time.Duration `name:"max-defer-timeout" default:"8760h" min:"0s" help:"longest delay of a deferred publish"`

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
	for _, a := range []struct{ name, addr string }{{"tcp-address", e.TCPAddress}, {"http-address", e.HTTPAddress}, {"admin-address", e.AdminAddress}} {
		if a.addr == "" && a.name == "admin-address" {
			continue
		}
		if err := checkAddress(a.addr); err != nil {
			return fmt.Errorf("--%s %q: %w", a.name, a.addr, err)
		}
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
