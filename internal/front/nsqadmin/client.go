package nsqadmin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
)

const (
	// answerBytesMax bounds the answer of an upstream: a quarter of a GiB is the
	// /stats of a hundred thousand clients and more.
	answerBytesMax = 256 << 20
	// errorBytesMax bounds how much of an upstream's refusal is told.
	errorBytesMax = 4 << 10
	// idleConns is how many connections to one upstream are kept.
	idleConns = 8
)

// client asks upstreams.
type client struct {
	http   *http.Client
	passes func(addr string) bool
	agent  string
}

func newClient(o *Options) *client {
	dialer := &net.Dialer{Timeout: o.ConnectTimeout}
	c := &client{
		passes: o.Passes, agent: "nsqadmin (tidings " + o.Version + ")",
		http: &http.Client{
			Timeout: o.RequestTimeout,
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					if o.Reach != nil {
						network, addr = o.Reach(addr)
					}
					return dialer.DialContext(ctx, network, addr)
				},
				TLSClientConfig:       o.TLS,
				TLSHandshakeTimeout:   o.RequestTimeout,
				ResponseHeaderTimeout: o.RequestTimeout,
				MaxIdleConns:          1024,
				MaxIdleConnsPerHost:   idleConns,
				IdleConnTimeout:       idlePatience,
			},
		},
	}
	if c.passes == nil {
		c.passes = func(string) bool { return false }
	}
	return c
}

// refusal is an answer that is not 200.
type refusal struct {
	url, status string
	code        int
	body        []byte
}

func (e *refusal) Error() string {
	return fmt.Sprintf("%s: got response %s %q", e.url, e.status, e.body[:min(len(e.body), errorBytesMax)])
}

// ask makes a request to the upstream at HOST:PORT and decodes its answer. One
// that insists on TLS is asked again at the port that it names.
func (c *client) ask(ctx context.Context, method, addr, path string, q url.Values, bearer string, to any) error {
	if !isAddress(addr) { // who has registered may call himself what he likes
		return fmt.Errorf("%q is no HOST:PORT", addr)
	}
	at := url.URL{Scheme: "http", Host: addr, Path: path, RawQuery: q.Encode()}
	if !c.passes(addr) {
		bearer = ""
	}
	body, err := c.do(ctx, method, at.String(), bearer)
	if no, ok := errors.AsType[*refusal](err); ok && no.code == http.StatusForbidden {
		if port := httpsPort(no.body); port > 0 {
			at.Scheme, at.Host = "https", net.JoinHostPort(at.Hostname(), strconv.Itoa(port))
			body, err = c.do(ctx, method, at.String(), bearer)
		}
	}
	if err != nil || to == nil {
		return err
	}
	if err := json.Unmarshal(body, to); err != nil {
		return fmt.Errorf("%s: %w", at.String(), err)
	}
	return nil
}

// httpsPort is where an nsqd that refuses plain HTTP takes requests; 0 if that
// was not its reason.
func httpsPort(body []byte) int {
	var answer struct {
		Port int `json:"https_port"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return 0
	}
	return answer.Port
}

func (c *client) do(ctx context.Context, method, at, bearer string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, at, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/vnd.nsq; version=1.0") // without it old nsqds answer otherwise
	req.Header.Set("User-Agent", c.agent)
	if bearer != "" {
		req.Header.Set("Authorization", bearer)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerBytesMax+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", at, err)
	case len(body) > answerBytesMax:
		return nil, fmt.Errorf("%s: answers more than %d bytes", at, answerBytesMax)
	case res.StatusCode != http.StatusOK:
		return nil, &refusal{url: at, status: res.Status, code: res.StatusCode, body: body}
	}
	return body, nil
}
