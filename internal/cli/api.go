package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Where a node listens when nobody said otherwise: its HTTP API, and its admin
// API.
const (
	defaultServer    = "127.0.0.1:" + defaultPort
	defaultPort      = "4151"
	defaultAdmin     = "127.0.0.1:" + defaultAdminPort
	defaultAdminPort = "4180"
)

// host is the address as HOST:PORT.
func (srv *server) host() (string, error) {
	if err := srv.find(); err != nil {
		return "", err
	}
	addr := strings.TrimPrefix(strings.TrimPrefix(srv.addr, "http://"), "https://")
	addr = strings.TrimSuffix(addr, "/")
	host, port, err := net.SplitHostPort(addr)
	if err != nil { // no port
		host, port = strings.Trim(addr, "[]"), srv.port
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil || strings.ContainsAny(host, " /?#@") || addr == "" {
		return "", usagef("--%s %q: want HOST:PORT of a node, such as 127.0.0.1:%s", srv.flag, srv.addr, srv.port)
	}
	return net.JoinHostPort(host, port), nil
}

// call sends a request to nsqd's HTTP API and returns the answer's body. An
// answer that is not 200 becomes an error with the right exit code.
func (srv *server) call(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error) {
	resp, answer, err := srv.send(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	if resp.Header.Get("X-NSQ-Content-Type") == "" {
		return nil, failf(exitUnreachable, "%s answers, but not as a node does (status %d); is it the node's HTTP address?", resp.Request.URL.Host, resp.StatusCode)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refused(resp.StatusCode, answer, query)
	}
	return answer, nil
}

// send sends a request and reads the answer, whose body is closed.
func (srv *server) send(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Response, []byte, error) {
	if srv.timeout <= 0 {
		return nil, nil, usagef("--timeout %s: want more than 0", srv.timeout)
	}
	ctx, cancel := context.WithTimeout(ctx, srv.timeout)
	defer cancel()
	resp, err := srv.open(ctx, method, path, query, body)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, srv.unreachable(ctx, resp.Request.URL.Host, err)
	}
	return resp, answer, nil
}

// open sends a request and returns when the answer begins, for an answer that
// is a stream. It lives as long as ctx; the caller closes its body.
func (srv *server) open(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Response, error) {
	host, err := srv.host() // finds out all about the server
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "http", Host: host, Path: path, RawPath: rawPath(path), RawQuery: query.Encode()}
	if srv.a.tls != nil {
		u.Scheme = "https"
		srv.transport(srv.a.tls)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, usagef("--%s %q: %w", srv.flag, srv.addr, err)
	}
	if srv.a.secret != "" && srv.flag == "server" {
		req.Header.Set("Authorization", "Bearer "+srv.a.secret)
	}
	if srv.flag == "admin" && body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := srv.http.Do(req)
	if err != nil {
		return nil, srv.unreachable(ctx, host, err)
	}
	return resp, nil
}

// rawPath writes a path for a URL. The names . and .. are names here, and must
// not lead elsewhere.
func rawPath(path string) string {
	segments := strings.Split((&url.URL{Path: path}).EscapedPath(), "/")
	for i, s := range segments {
		if s == "." || s == ".." {
			segments[i] = strings.ReplaceAll(s, ".", "%2E")
		}
	}
	return strings.Join(segments, "/")
}

// unreachable says why there is no answer. Once a request has been sent, what
// it asked for may have been done.
func (srv *server) unreachable(ctx context.Context, host string, err error) error {
	host = srv.at(host)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return failf(exitTimeout, "no answer from %s within %s; it may still be done", host, srv.timeout)
	}
	if ctx.Err() != nil {
		return failf(exitFailure, "interrupted")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return failf(exitUnreachable, "can't reach a node at %s: %w; start one with `tidings dev`, or name another with --%s", host, op.Err, srv.flag)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if strings.Contains(err.Error(), "malformed HTTP") {
		return failf(exitUnreachable, "%s does not speak HTTP; --%s wants an HTTP address of a node, by default port %s", host, srv.flag, srv.port)
	}
	return failf(exitUnreachable, "lost the connection to %s before the answer, so it may have been done or not: %w", host, err)
}

// nameRule is what a topic's or a channel's name has to be.
const nameRule = "a name has 1 to 64 of the characters . a-z A-Z 0-9 _ - and may end in #ephemeral"

// errTooBig is an answer with status 413.
var errTooBig = errors.New("larger than the node takes; its --max-msg-size and --max-body-size say how large")

// refused turns an error answer into words.
func refused(status int, body []byte, query url.Values) error {
	var msg struct{ Message string }
	if json.Unmarshal(body, &msg) != nil || msg.Message == "" {
		msg.Message = strings.TrimSpace(string(body))
	}
	topic, channel := query.Get("topic"), query.Get("channel")
	switch msg.Message {
	case "TOPIC_NOT_FOUND":
		return failf(exitNotFound, "topic %s not found; `tidings topic ls` lists what is there", topic)
	case "CHANNEL_NOT_FOUND":
		return failf(exitNotFound, "channel %s not found on topic %s; `tidings channel ls %s` lists what is there", channel, topic, topic)
	case "AUTH_FIRST":
		return failf(exitDenied, "the node wants to know who asks: give its secret in the environment, as %s, or in a file that the context names", envSecret)
	case "AUTH_FAILED":
		return failf(exitDenied, "the node's auth servers do not know this %s, or can't be asked", envSecret)
	case "TLS_REQUIRED":
		return failf(exitDenied, "the node talks over TLS only: give --server https://HOST:PORT, its https-address")
	case "INVALID_TOPIC", "INVALID_ARG_TOPIC":
		return usagef("topic %q: %s", topic, nameRule)
	case "INVALID_ARG_CHANNEL", "INVALID_CHANNEL":
		return usagef("channel %q: %s", channel, nameRule)
	case "INVALID_DEFER":
		return usagef("--delay: longer than the node's --max-defer-timeout")
	case "INVALID_KEY":
		return usagef("--key: at most 1024 bytes")
	case "INVALID_ID":
		return usagef("--id: at most 1024 bytes")
	case "INVALID_MAX_ATTEMPTS":
		return usagef("--max-attempts: a number from 0, which is no limit, to 65534")
	case "INVALID_PARTITIONS":
		return usagef("--partitions: a number from 1 to 4096")
	case "INVALID_DEAD_LETTER":
		return usagef("--dead-letter: goes with --max-attempts above 0, to a topic that is neither %s itself nor #ephemeral; %s; %s.%s.dead is taken where none is given and that fits",
			topic, nameRule, topic, channel)
	case "TIMEOUT":
		return failf(exitTimeout, "the node did not get it done in time; it may still be done")
	case "EXITING":
		return failf(exitUnreachable, "the node is shutting down")
	case "MSG_EMPTY":
		return usagef("message is empty; NSQ has no empty messages")
	case "DISK_RESERVE":
		return failf(exitFailure, "refused: the node's disk is full down to its reserve; consume, empty or delete something, or free disk space")
	}
	code := exitFailure
	switch status {
	case http.StatusRequestEntityTooLarge:
		return failf(exitFailure, "%w (%s)", errTooBig, msg.Message)
	case http.StatusUnauthorized, http.StatusForbidden:
		code = exitDenied
	case http.StatusConflict:
		code = exitConflict
	}
	return failf(code, "the node refused, status %d: %s", status, msg.Message)
}

// stats is the part of /stats that the commands show; the names are NSQ's.
type stats struct {
	Version string      `json:"version"`
	Health  string      `json:"health"`
	Topics  []topicStat `json:"topics"`
}

type topicStat struct {
	Name     string        `json:"topic_name"`
	Depth    int64         `json:"depth"`
	Messages int64         `json:"message_count"`
	Bytes    int64         `json:"message_bytes"`
	Paused   bool          `json:"paused"`
	Channels []channelStat `json:"channels"`
}

type channelStat struct {
	Name     string `json:"channel_name"`
	Depth    int64  `json:"depth"`
	InFlight int64  `json:"in_flight_count"`
	Deferred int64  `json:"deferred_count"`
	Messages int64  `json:"message_count"`
	Requeued int64  `json:"requeue_count"`
	TimedOut int64  `json:"timeout_count"`
	Clients  int    `json:"client_count"`
	Paused   bool   `json:"paused"`
	// Of a channel with a limit only.
	MaxAttempts  int    `json:"max_attempts,omitempty"`
	DeadLetter   string `json:"dead_letter,omitempty"`
	DeadLettered int64  `json:"dead_letter_count,omitempty"`
}

// stats asks for all topics, one topic, or one channel.
func (srv *server) stats(ctx context.Context, topic, channel string) (stats, error) {
	q := url.Values{"format": {"json"}, "include_clients": {"false"}, "include_mem": {"false"}}
	if topic != "" {
		q.Set("topic", topic)
	}
	if channel != "" {
		q.Set("channel", channel)
	}
	body, err := srv.call(ctx, http.MethodGet, "/stats", q, nil)
	if err != nil {
		return stats{}, err
	}
	var st stats
	if err := json.Unmarshal(body, &st); err != nil {
		return stats{}, failf(exitFailure, "read /stats of %s: %w", srv.addr, err)
	}
	if st.Topics == nil { // JSON output has a list, empty or not
		st.Topics = []topicStat{}
	}
	for i := range st.Topics {
		if st.Topics[i].Channels == nil {
			st.Topics[i].Channels = []channelStat{}
		}
	}
	return st, nil
}

// topic asks for one topic, which has to be there.
func (srv *server) topic(ctx context.Context, name string) (topicStat, error) {
	st, err := srv.stats(ctx, name, "")
	if err != nil {
		return topicStat{}, err
	}
	for _, t := range st.Topics {
		if t.Name == name {
			return t, nil
		}
	}
	return topicStat{}, refused(http.StatusNotFound, []byte(`{"message":"TOPIC_NOT_FOUND"}`), url.Values{"topic": {name}})
}

// channel asks for one channel, which has to be there.
func (srv *server) channel(ctx context.Context, topic, name string) (channelStat, error) {
	t, err := srv.topic(ctx, topic)
	if err != nil {
		return channelStat{}, err
	}
	for _, c := range t.Channels {
		if c.Name == name {
			return c, nil
		}
	}
	return channelStat{}, refused(http.StatusNotFound, []byte(`{"message":"CHANNEL_NOT_FOUND"}`), url.Values{"topic": {topic}, "channel": {name}})
}

// tcpAddr is where the node takes NSQ TCP clients: the HTTP address's host
// with the port that /info names.
func (srv *server) tcpAddr(ctx context.Context) (string, error) {
	body, err := srv.call(ctx, http.MethodGet, "/info", nil, nil)
	if err != nil {
		return "", err
	}
	var info struct {
		TCPPort int `json:"tcp_port"`
	}
	if err := json.Unmarshal(body, &info); err != nil || info.TCPPort <= 0 {
		return "", failf(exitFailure, "read /info of %s: no TCP port in %q", srv.addr, body)
	}
	addr, err := srv.host()
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(info.TCPPort)), nil
}

// setting asks for a number among the node's settings; 0 if it does not say.
func (srv *server) setting(ctx context.Context, key string) (int64, error) {
	body, err := srv.call(ctx, http.MethodGet, "/config/"+key, nil, nil)
	if code := exitCode(err); code == exitUnreachable || code == exitTimeout || code == exitUsage {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(body)), 10, 64)
	if err != nil {
		return 0, nil //nolint:nilerr // an older nsqd does not tell
	}
	return n, nil
}

func (srv *server) post(ctx context.Context, path string, query url.Values) error {
	_, err := srv.call(ctx, http.MethodPost, path, query, nil)
	return err
}
