// Package auth asks auth servers what a client may do, by the contract that
// nsqd has with them: a request with the client's secret and address, an answer
// with grants that are good for a while.
package auth

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// answerBytesMax bounds what is read of an auth server's answer.
	answerBytesMax = 1 << 20
	// idleConnsMax and idlePatience bound the connections to auth servers that
	// are kept for the next question.
	idleConnsMax = 16
	idlePatience = 90 * time.Second
	// handshakePatience bounds the TLS handshake with an auth server.
	handshakePatience = 10 * time.Second
)

// Options of a Client. Zero values become nsqd's defaults.
type Options struct {
	// Addresses are the auth servers: HOST:PORT, which is asked at
	// http://HOST:PORT/auth, or a whole URL. Each question begins with another.
	Addresses []string
	// Method is get, with the question in the URL, or post, with the question
	// in the body as nsqd sends it: a JSON object of lists. Empty is get.
	Method string
	// ConnectTimeout and RequestTimeout bound the wait for one server; zero is
	// 2 s and 5 s.
	ConnectTimeout, RequestTimeout time.Duration
	// TLS is used with servers that speak HTTPS; nil is Go's default.
	TLS *tls.Config
}

// Client asks auth servers. It may be used by many goroutines at once.
type Client struct {
	o    Options
	http *http.Client

	asked, failed atomic.Uint64
}

// Stats counts questions since the client was made.
type Stats struct {
	// Asked are questions, each to as many servers as it took; Failed those to
	// which none gave a valid answer.
	Asked, Failed uint64
}

// Stats returns the counts of the moment.
func (c *Client) Stats() Stats { return Stats{Asked: c.asked.Load(), Failed: c.failed.Load()} }

// New makes a client. It connects when it is asked.
func New(o Options) *Client {
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 2 * time.Second
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = 5 * time.Second
	}
	return &Client{o: o, http: &http.Client{
		Timeout: o.RequestTimeout,
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: o.ConnectTimeout, KeepAlive: 30 * time.Second}).DialContext,
			ResponseHeaderTimeout: o.RequestTimeout,
			TLSHandshakeTimeout:   handshakePatience,
			TLSClientConfig:       o.TLS,
			MaxIdleConnsPerHost:   idleConnsMax,
			IdleConnTimeout:       idlePatience,
		},
	}}
}

// Who is the client that somebody asks about. It is comparable.
type Who struct {
	RemoteIP   string // empty on a unix socket
	TLS        bool
	CommonName string // of its certificate
	Secret     string
}

// values is the question.
func (w Who) values() url.Values {
	return url.Values{
		"remote_ip": {w.RemoteIP}, "tls": {strconv.FormatBool(w.TLS)},
		"secret": {w.Secret}, "common_name": {w.CommonName},
	}
}

// Ask returns the grants of a client, from the first server that gives a valid
// answer. The error says what was wrong with each of them, and is for the log
// only: it may tell of the servers and never of the secret.
func (c *Client) Ask(ctx context.Context, w Who) (*Grants, error) {
	c.asked.Add(1)
	n := len(c.o.Addresses)
	if n == 0 {
		c.failed.Add(1)
		return nil, errors.New("there is no auth server")
	}
	var failed []error
	for i, first := 0, rand.IntN(n); i < n; i++ {
		address := c.o.Addresses[(first+i)%n]
		g, err := c.askOne(ctx, address, w)
		if err == nil {
			return g, nil
		}
		failed = append(failed, fmt.Errorf("ask auth server %s: %w", address, withoutURL(err)))
		if ctx.Err() != nil {
			break
		}
	}
	c.failed.Add(1)
	return nil, errors.Join(failed...)
}

// withoutURL takes the URL out of an error, because the secret stands in it.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// askOne asks one server, a second time over HTTPS if it says so.
func (c *Client) askOne(ctx context.Context, address string, w Who) (*Grants, error) {
	endpoint := address
	if !strings.Contains(address, "://") {
		endpoint = "http://" + address + "/auth"
	}
	status, body, err := c.exchange(ctx, endpoint, w.values())
	if err == nil && status == http.StatusForbidden && !strings.HasPrefix(endpoint, "https") {
		if endpoint, err = secured(endpoint, body); err == nil {
			status, body, err = c.exchange(ctx, endpoint, w.values())
		}
	}
	switch {
	case err != nil:
		return nil, err
	case status != http.StatusOK:
		return nil, fmt.Errorf("status %d", status)
	}
	return parse(body, time.Now())
}

// exchange sends a question and reads the answer.
func (c *Client) exchange(ctx context.Context, endpoint string, v url.Values) (int, []byte, error) {
	var content io.Reader
	method := http.MethodGet
	if c.o.Method == "post" {
		method = http.MethodPost
		question, err := json.Marshal(v)
		if err != nil {
			return 0, nil, err
		}
		content = bytes.NewReader(question)
	} else {
		mark := "?"
		if strings.Contains(endpoint, "?") {
			mark = "&"
		}
		endpoint += mark + v.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, endpoint, content)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", "application/vnd.nsq; version=1.0")
	if content != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax+1))
	if len(body) > answerBytesMax {
		return 0, nil, fmt.Errorf("answer is larger than %d bytes", answerBytesMax)
	}
	return resp.StatusCode, body, err
}

// secured is the endpoint that a server names when it wants HTTPS.
func secured(endpoint string, body []byte) (string, error) {
	var says struct {
		Port int `json:"https_port"`
	}
	if json.Unmarshal(body, &says) != nil || says.Port <= 0 {
		return "", errors.New("status 403")
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", err
	}
	u.Scheme, u.Host = "https", net.JoinHostPort(u.Hostname(), strconv.Itoa(says.Port))
	return u.String(), nil
}
