package tools

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// web is a client of NSQ's HTTP APIs, with the two flags that bound its waits.
type web struct {
	connectTimeout, requestTimeout time.Duration
}

func (w *web) define(fs *flag.FlagSet, request time.Duration) {
	fs.DurationVar(&w.connectTimeout, "http-client-connect-timeout", 2*time.Second, "how long an HTTP connection may take")
	fs.DurationVar(&w.requestTimeout, "http-client-request-timeout", request, "how long an HTTP request may take")
}

func (w *web) check() error {
	switch {
	case w.connectTimeout <= 0:
		return usagef("--http-client-connect-timeout %s: want more than 0", w.connectTimeout)
	case w.requestTimeout <= 0:
		return usagef("--http-client-request-timeout %s: want more than 0", w.requestTimeout)
	}
	return nil
}

// client is for as many requests at a time to one host.
func (w *web) client(atATime int) *http.Client {
	return &http.Client{
		Timeout: w.requestTimeout,
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: w.connectTimeout, KeepAlive: 30 * time.Second}).DialContext,
			MaxIdleConnsPerHost: atATime,
			IdleConnTimeout:     90 * time.Second,
		},
	}
}

// statusError is an answer that is not 200.
type statusError struct {
	url    string
	status int
	body   string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s answered %d %s", e.url, e.status, strings.TrimSpace(e.body))
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 256 << 20

// getJSON asks and decodes an answer of NSQ's API, version 1.0.
func getJSON(ctx context.Context, client *http.Client, address string, to any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/vnd.nsq; version=1.0")
	resp, err := client.Do(req)
	if err != nil {
		return errorf(ErrUnreachable, "%w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return errorf(ErrUnreachable, "read answer of %s: %w", address, err)
	case resp.StatusCode != http.StatusOK:
		return &statusError{address, resp.StatusCode, string(body)}
	}
	if err := json.Unmarshal(body, to); err != nil {
		return fmt.Errorf("read answer of %s: %w", address, err)
	}
	return nil
}

// askAll asks every address at once and returns what came, and why the others
// did not answer.
func askAll[T any](ctx context.Context, client *http.Client, addrs []string, path string) (answers []T, failed []error) {
	got := make([]T, len(addrs))
	errs := make([]error, len(addrs))
	var all sync.WaitGroup
	for i, addr := range addrs {
		all.Go(func() { errs[i] = getJSON(ctx, client, baseURL(addr)+path, &got[i]) })
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			failed = append(failed, err)
			continue
		}
		answers = append(answers, got[i])
	}
	return answers, failed
}

// lookupTopics is every topic that one of the nsqlookupds knows, sorted. It has
// an error only if none has answered; failed tells of each that has not.
func lookupTopics(ctx context.Context, client *http.Client, addrs []string) (topics []string, failed []error, err error) {
	type reply struct {
		Topics []string `json:"topics"`
	}
	answers, failed := askAll[reply](ctx, client, addrs, "/topics")
	if len(answers) == 0 {
		return nil, nil, fmt.Errorf("no nsqlookupd has answered: %w", errors.Join(failed...))
	}
	for _, a := range answers {
		topics = append(topics, a.Topics...)
	}
	slices.Sort(topics)
	return slices.Compact(topics), failed, nil
}

// lookupProducers is the HTTP address of every node that has the topic, as the
// nsqlookupds say. A topic that all of them do not know is ErrNotFound.
func lookupProducers(ctx context.Context, client *http.Client, addrs []string, topic string) (nodes []string, failed []error, err error) {
	type reply struct {
		Producers []struct {
			BroadcastAddress string `json:"broadcast_address"`
			HTTPPort         int    `json:"http_port"`
		} `json:"producers"`
	}
	answers, errs := askAll[reply](ctx, client, addrs, "/lookup?topic="+url.QueryEscape(topic))
	for _, err := range errs {
		if status, ok := errors.AsType[*statusError](err); ok && status.status == http.StatusNotFound {
			continue // it has not heard of the topic, others may
		}
		failed = append(failed, err)
	}
	for _, a := range answers {
		for _, p := range a.Producers {
			nodes = append(nodes, net.JoinHostPort(p.BroadcastAddress, strconv.Itoa(p.HTTPPort)))
		}
	}
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	switch {
	case len(nodes) > 0:
		return nodes, failed, nil
	case len(failed) > 0:
		return nil, nil, fmt.Errorf("look up topic %s: %w", topic, errors.Join(failed...))
	}
	return nil, nil, errorf(ErrNotFound, "no nsqlookupd knows a node with topic %s", topic)
}
