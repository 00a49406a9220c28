package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/front/nsq"
	"github.com/tidings-io/tidings/internal/spool"
)

const (
	// dialPatience and answerPatience bound how long a node may take to accept a
	// connection, and to answer: it waits up to 5 s for a leader itself.
	dialPatience   = 2 * time.Second
	answerPatience = 10 * time.Second
	// answerBytesMax bounds an answer.
	answerBytesMax = 64 << 10
)

// upstream is the nodes of a cluster, or one, by the HTTP API that clients use.
type upstream struct {
	seeds  []string // URLs without a path
	secret string   // shown to nodes with AUTH; empty: none
	client *http.Client
	turn   atomic.Uint32 // whose it is among seeds
}

var _ spool.Upstream = (*upstream)(nil)

// newUpstream knows nodes by HOST:PORT, or a URL.
func newUpstream(addresses []string, secret string, config *tls.Config) *upstream {
	u := &upstream{secret: secret, client: &http.Client{
		Timeout:       dialPatience + answerPatience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:     (&net.Dialer{Timeout: dialPatience, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig: config, TLSHandshakeTimeout: dialPatience, ForceAttemptHTTP2: false,
			ResponseHeaderTimeout: answerPatience, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute,
			DisableCompression: true,
		},
	}}
	for _, a := range addresses {
		if !strings.Contains(a, "://") {
			a = "http://" + a
		}
		u.seeds = append(u.seeds, strings.TrimSuffix(a, "/"))
	}
	return u
}

// Forward gives a part to the node whose turn it is; one that fails passes the turn on.
func (u *upstream) Forward(ctx context.Context, p *spool.Part) (int, error) {
	turn := u.turn.Load()
	n, err := u.ask(ctx, u.seeds[int(turn)%len(u.seeds)], p)
	switch fault.CodeOf(err) {
	case fault.None, fault.OutOfOrder:
	default:
		u.turn.CompareAndSwap(turn, turn+1)
	}
	return n, err
}

func (u *upstream) ask(ctx context.Context, seed string, p *spool.Part) (int, error) {
	query := url.Values{
		"topic": {p.Topic}, "origin": {hex.EncodeToString(p.Origin[:])}, "partition": {strconv.Itoa(p.Partition)}, "partitions": {strconv.Itoa(p.Spread)},
		"from": {strconv.FormatUint(p.From, 10)}, "to": {strconv.FormatUint(p.To, 10)},
	}
	body := spool.AppendMessages(nil, p.Messages)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, seed+nsq.PathEdge+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return 0, fault.Wrap(fault.InvalidRequest, err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if u.secret != "" {
		req.Header.Set("Authorization", "Bearer "+u.secret)
	}
	resp, err := u.client.Do(req)
	if err != nil {
		if whole, ok := errors.AsType[*url.Error](err); ok {
			err = whole.Err // the rest is the URL, which says nothing to people
		}
		return 0, fault.Wrap(fault.Unreachable, fmt.Errorf("ask %s: %w", seed, err))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return 0, fault.Wrap(fault.Unreachable, err)
	}
	if resp.StatusCode != http.StatusOK {
		return 0, refusal(seed, resp, answer)
	}
	var out nsq.Forwarded
	if err := json.Unmarshal(answer, &out); err != nil {
		return 0, fault.Wrap(fault.Unreachable, fmt.Errorf("%s answers, but not as a node does: %w", seed, err))
	}
	return out.Partitions, nil
}

// refusal is why a node does not take a part.
func refusal(seed string, resp *http.Response, answer []byte) error {
	var said struct{ Message string }
	switch err := json.Unmarshal(answer, &said); {
	case resp.Header.Get("X-NSQ-Content-Type") == "" || err != nil:
		return fault.New(fault.Unreachable, "%s answers with status %d, but not as a node does", seed, resp.StatusCode)
	case resp.StatusCode == http.StatusNotFound:
		return fault.New(fault.Unsupported, "%s does not take what edges bring: it is an nsqd, an edge, or an older node", seed)
	case said.Message == "TLS_REQUIRED":
		return fault.New(fault.Forbidden, "%s wants TLS: name its HTTPS address, with https:// before it", seed)
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return fault.New(fault.Forbidden, "%s says %s: the secret in TIDINGS_SECRET needs the grant to publish", seed, said.Message)
	}
	code := fault.Named(said.Message)
	if code == fault.Internal && resp.StatusCode < http.StatusInternalServerError {
		code = fault.InvalidRequest
	}
	return fault.New(code, "%s says %s", seed, said.Message)
}
