package nsqadmin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/sync/errgroup"
)

// atATime is how many upstreams one request has asked at most and not heard of.
const atATime = 32

// fanout is one request's way to its upstreams.
type fanout struct {
	ctx             context.Context
	client          *client
	lookupds, nsqds []string
	bearer          string // the caller's, with its scheme
	failed          []string
	tombstone       func(ctx context.Context, topic, node string)
}

// reach is the way to the upstreams for a request. What changes something goes
// on when the caller has gone: half of it would be worse.
func (f *Front) reach(r *http.Request) (*fanout, context.CancelFunc) {
	ctx := r.Context()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	u := &fanout{ctx: ctx, client: f.client, lookupds: *f.lookupds.Load(), nsqds: f.o.NSQDHTTPAddresses, tombstone: f.o.Tombstone}
	if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		u.bearer = r.Header.Get("Authorization")
	}
	return u, cancel
}

// get asks one upstream.
func (u *fanout) get(addr, path string, q url.Values, to any) error {
	return u.client.ask(u.ctx, http.MethodGet, addr, path, q, u.bearer, to)
}

// answer is what one of many upstreams said.
type answer[T any] struct {
	addr string
	T    T
}

// each does something with every upstream, some at a time. It returns what came,
// in the order of the addresses, and notes who failed. It is an error if all
// have, or if there are none: kind is what they are called then.
func each[T any](u *fanout, kind string, addrs []string, do func(addr string) (T, error)) ([]answer[T], error) {
	got, errs := gather(addrs, do)
	if len(errs) == len(addrs) {
		return nil, &httpError{http.StatusBadGateway, fmt.Sprintf("UPSTREAM_ERROR: failed to query any %s: %s", kind, lines(errs))}
	}
	u.note(errs)
	return got, nil
}

// gather is each without a judgement.
func gather[T any](addrs []string, do func(addr string) (T, error)) (got []answer[T], failed []error) {
	answers, errs := make([]T, len(addrs)), make([]error, len(addrs))
	var g errgroup.Group
	g.SetLimit(atATime)
	for i, addr := range addrs {
		g.Go(func() error {
			answers[i], errs[i] = do(addr)
			return nil
		})
	}
	_ = g.Wait() // they stand in errs
	for i, err := range errs {
		if err != nil {
			failed = append(failed, err)
			continue
		}
		got = append(got, answer[T]{addrs[i], answers[i]})
	}
	return got, failed
}

// post tells every upstream, and notes who failed.
func (u *fanout) post(addrs []string, path string, q url.Values) {
	_, errs := gather(addrs, func(addr string) (struct{}, error) {
		return struct{}{}, u.client.ask(u.ctx, http.MethodPost, addr, path, q, u.bearer, nil)
	})
	u.note(errs)
}

// note keeps failures for the answer's message.
func (u *fanout) note(errs []error) {
	if len(errs) > 0 {
		u.failed = append(u.failed, lines(errs))
	}
}

func lines(errs []error) string {
	if len(errs) == 0 {
		return ""
	}
	return errors.Join(errs...).Error()
}

// message is the warning of an answer, if there is something to warn of.
func (u *fanout) message() string {
	if len(u.failed) == 0 {
		return ""
	}
	return "WARNING: " + strings.Join(u.failed, "; ")
}
