package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	// streamSilence is how long a stream may say nothing; a node sends something
	// every 10 s.
	streamSilence = 30 * time.Second
	// eventBytes bounds one event; a page of the largest rows has far less.
	eventBytes = 32 << 20
)

var errSilence = errors.New("nothing was heard for " + streamSilence.String())

// eventStream is a stream of server-sent events of the admin API.
type eventStream struct {
	host   string
	body   io.ReadCloser
	lines  *bufio.Scanner
	silent *time.Timer // ends the stream
	cancel context.CancelCauseFunc
	ctx    context.Context
}

// events opens a stream; srv.timeout bounds the time until it begins. The caller
// closes it.
func (srv *server) events(parent context.Context, path string, query url.Values) (*eventStream, error) {
	if srv.timeout <= 0 {
		return nil, usagef("--timeout %s: want more than 0", srv.timeout)
	}
	ctx, cancel := context.WithCancelCause(parent)
	late := time.AfterFunc(srv.timeout, func() { cancel(context.DeadlineExceeded) })
	resp, err := srv.open(ctx, http.MethodGet, path, query, nil)
	if !late.Stop() && parent.Err() == nil {
		if err == nil {
			resp.Body.Close()
		}
		cancel(nil)
		host, _ := srv.host() // it was found before
		return nil, failf(exitTimeout, "no answer from %s within %s", srv.at(host), srv.timeout)
	}
	if err == nil {
		if err = notStream(resp); err != nil {
			resp.Body.Close()
		}
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	s := &eventStream{host: srv.at(resp.Request.URL.Host), body: resp.Body, lines: bufio.NewScanner(resp.Body), cancel: cancel, ctx: ctx}
	s.lines.Buffer(nil, eventBytes)
	s.silent = time.AfterFunc(streamSilence, func() { cancel(errSilence) })
	return s, nil
}

// notStream is nil if the answer is a stream.
func notStream(resp *http.Response) error {
	if err := notAdmin(resp); err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return failf(exitUnreachable, "lost the connection to %s: %w", resp.Request.URL.Host, err)
	}
	return adminRefused(resp.StatusCode, answer)
}

// next returns an event's kind and data, which is good until the next call. The
// error of a stream that has ended has exit code 5.
func (s *eventStream) next() (kind string, data []byte, err error) {
	for s.lines.Scan() {
		s.silent.Reset(streamSilence)
		line := s.lines.Bytes()
		if len(line) == 0 {
			kind = ""
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch string(name) {
		case "event":
			kind = string(value)
		case "data": // the admin API writes it on one line
			return kind, value, nil
		}
	}
	err = s.lines.Err()
	switch cause := context.Cause(s.ctx); {
	case errors.Is(cause, errSilence):
		err = errSilence
	case cause != nil:
		return "", nil, cause
	case err == nil:
		err = errors.New("the node ended the stream")
	}
	return "", nil, failf(exitUnreachable, "lost the connection to %s: %w", s.host, err)
}

// close ends the stream.
func (s *eventStream) close() {
	s.silent.Stop()
	s.cancel(nil)
	s.body.Close()
}
