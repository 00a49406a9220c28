package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"time"
)

// NSQAdmin holds the settings of `tidings nsqadmin`, which are nsqadmin's; the
// tags are those of Config.
type NSQAdmin struct {
	HTTPAddress string `name:"http-address" default:"0.0.0.0:4171" help:"address to listen on, HOST:PORT"`
	BasePath    string `name:"base-path" default:"/" help:"path that stands before all others"`
	LogLevel    string `name:"log-level" default:"info" help:"debug, info, warn or error"`
	LogFormat   string `name:"log-format" default:"auto" help:"text, json, or auto (text on a terminal)"`

	LookupdHTTPAddresses List `name:"lookupd-http-address" key:"nsqlookupd_http_addresses" default:"" help:"nsqlookupds to ask; the flag may be repeated"`
	NSQDHTTPAddresses    List `name:"nsqd-http-address" key:"nsqd_http_addresses" default:"" help:"nsqds to ask, where there is no nsqlookupd; the flag may be repeated"`

	ACLHTTPHeader            string `name:"acl-http-header" default:"X-Forwarded-User" help:"header in which a proxy before this server names the user"`
	AdminUsers               List   `name:"admin-user" key:"admin_users" default:"" help:"user who may change something; the flag may be repeated (none: everybody may)"`
	AllowConfigFromCIDR      string `name:"allow-config-from-cidr" default:"127.0.0.1/8" help:"addresses that may use /config (empty: all)"`
	NotificationHTTPEndpoint string `name:"notification-http-endpoint" default:"" help:"URL to which every action is posted"`

	GraphiteURL         string        `name:"graphite-url" default:"" help:"URL of graphite"`
	ProxyGraphite       bool          `name:"proxy-graphite" default:"false" help:"answer /render with graphite's"`
	StatsdPrefix        string        `name:"statsd-prefix" default:"nsq.%s" help:"what stands before the names of metrics, as nsqds have it; %s is the host"`
	StatsdCounterFormat string        `name:"statsd-counter-format" default:"stats.counters.%s.count" help:"name that statsd gives a counter"`
	StatsdGaugeFormat   string        `name:"statsd-gauge-format" default:"stats.gauges.%s" help:"name that statsd gives a gauge"`
	StatsdInterval      time.Duration `name:"statsd-interval" default:"1m" min:"1s" help:"how often nsqds push to statsd"`

	HTTPConnectTimeout        time.Duration `name:"http-client-connect-timeout" default:"2s" min:"1ms" help:"longest wait for a connection to a server that is asked"`
	HTTPRequestTimeout        time.Duration `name:"http-client-request-timeout" default:"5s" min:"1ms" help:"longest wait for the whole answer of one"`
	HTTPTLSCert               string        `name:"http-client-tls-cert" default:"" help:"PEM file with the certificate that is shown to servers"`
	HTTPTLSKey                string        `name:"http-client-tls-key" default:"" help:"PEM file with its key"`
	HTTPTLSRootCAFile         string        `name:"http-client-tls-root-ca-file" default:"" help:"PEM file with the authorities of servers (empty: the system's)"`
	HTTPTLSInsecureSkipVerify bool          `name:"http-client-tls-insecure-skip-verify" default:"false" help:"take any certificate of a server"`
}

// Fields lists the settings of a; setting a Field changes a.
func (a *NSQAdmin) Fields() []Field { return fieldsOf(reflect.ValueOf(a).Elem(), false) }

// DefaultNSQAdmin are nsqadmin's own defaults. They are not enough: there is
// nobody to ask.
func DefaultNSQAdmin() NSQAdmin {
	var a NSQAdmin
	setDefaults(a.Fields())
	return a
}

// LoadNSQAdmin is Load for `tidings nsqadmin`: src.Defaults and src.NSQD do not
// count, unknown file keys warn.
func LoadNSQAdmin(src Source) (a NSQAdmin, warnings []string, err error) {
	a = DefaultNSQAdmin()
	src.Defaults, src.NSQD = nil, true
	if warnings, err = load(src, a.Fields(), nil); err != nil {
		return a, nil, err
	}
	return a, warnings, a.Validate()
}

// Validate reports the first setting that can't work, naming its flag.
func (a *NSQAdmin) Validate() error {
	if err := checkAddress(a.HTTPAddress); err != nil {
		return fmt.Errorf("--http-address %q: %w", a.HTTPAddress, err)
	}
	switch {
	case len(a.LookupdHTTPAddresses) == 0 && len(a.NSQDHTTPAddresses) == 0:
		return errors.New("--nsqd-http-address or --lookupd-http-address required")
	case len(a.LookupdHTTPAddresses) > 0 && len(a.NSQDHTTPAddresses) > 0:
		return errors.New("use --nsqd-http-address or --lookupd-http-address not both")
	case a.HTTPTLSCert != "" && a.HTTPTLSKey == "":
		return errors.New("--http-client-tls-key must be specified with --http-client-tls-cert")
	case a.HTTPTLSKey != "" && a.HTTPTLSCert == "":
		return errors.New("--http-client-tls-cert must be specified with --http-client-tls-key")
	}
	for _, list := range []struct {
		name  string
		addrs List
	}{{"lookupd-http-address", a.LookupdHTTPAddresses}, {"nsqd-http-address", a.NSQDHTTPAddresses}} {
		for _, addr := range list.addrs {
			if err := checkUpstream(addr); err != nil {
				return fmt.Errorf("--%s %q: %w", list.name, addr, err)
			}
		}
	}
	if _, err := a.ConfigFrom(); err != nil {
		return err
	}
	if err := a.validateURLs(); err != nil {
		return err
	}
	return (&Config{LogLevel: a.LogLevel, LogFormat: a.LogFormat}).validateLog()
}

// checkUpstream accepts HOST:PORT with a host.
func checkUpstream(addr string) error {
	if err := checkAddress(addr); err != nil {
		return err
	}
	if u, err := url.Parse("http://" + addr); err != nil || u.Host != addr || u.Hostname() == "" {
		return errors.New("want HOST:PORT, such as 127.0.0.1:4161")
	}
	return nil
}

func (a *NSQAdmin) validateURLs() error {
	for _, f := range []struct{ name, text string }{
		{"graphite-url", a.GraphiteURL}, {"notification-http-endpoint", a.NotificationHTTPEndpoint},
	} {
		if f.text == "" {
			continue
		}
		if u, err := url.Parse(f.text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("--%s %q: want a URL, such as http://127.0.0.1:8080", f.name, f.text)
		}
	}
	if a.ProxyGraphite && a.GraphiteURL == "" {
		return errors.New("--proxy-graphite: there is no --graphite-url to proxy")
	}
	return nil
}

// ConfigFrom is who may use /config; an invalid prefix is everybody.
func (a *NSQAdmin) ConfigFrom() (netip.Prefix, error) {
	if a.AllowConfigFromCIDR == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(a.AllowConfigFromCIDR)
	if err != nil {
		return p, fmt.Errorf("--allow-config-from-cidr %q: want a network such as 127.0.0.1/8", a.AllowConfigFromCIDR)
	}
	return p.Masked(), nil
}
