package tools

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nsqio/go-nsq"
)

// Go-nsq's own number of attempts, after which nsq_to_http gives a message up.
const httpAttempts = 5

func toHTTPTool() Tool {
	return Tool{
		Name: "nsq_to_http", Short: "Send a topic's messages to HTTP addresses",
		Long: `Consume a topic and send each message to an HTTP address: with --post as the
body, with --get in the address, where %s stands for it, escaped. A message is
finished when the answer is 2xx (200 for --get), and tried again later
otherwise, up to 5 times; --consumer-opt=max_attempts,0 never gives up.

Of several addresses --mode chooses one for each message; multicast sends each
message to all of them, and all again when one fails.`,
		Example: `  tidings nsq_to_http -topic orders -post http://127.0.0.1:8080/orders -nsqd-tcp-address 127.0.0.1:4150
  tidings nsq_to_http -topic orders -get 'http://127.0.0.1:8080/?q=%s' -lookupd-http-address 127.0.0.1:4161`,
		make: func() command { return &toHTTP{source: newSource("nsq_to_http", "nsq_to_http", httpAttempts)} },
	}
}

const defaultContentType = "application/octet-stream"

// toHTTP is nsq_to_http.
type toHTTP struct {
	source
	web
	topic       string
	gets, posts list
	headerLines list
	contentType string
	handlers    int
	mode        string
	sample      float64
	statusEvery int

	headers http.Header // made by check

	// made by run
	http     *http.Client
	pool     *pool
	statuses statuses
}

func (t *toHTTP) define(fs *flag.FlagSet) {
	t.source.define(fs)
	t.web.define(fs, 20*time.Second)
	fs.StringVar(&t.topic, "topic", "", "NSQ topic to consume")
	fs.Var(&t.posts, "post", "HTTP address to POST each message to (may be given multiple times)")
	fs.Var(&t.gets, "get", "HTTP address to GET for each message, which stands where %s is (may be given multiple times)")
	fs.Var(&t.headerLines, "header", "'NAME: VALUE' of a header of every request (may be given multiple times)")
	fs.StringVar(&t.contentType, "content-type", defaultContentType, "Content-Type of every POST")
	fs.IntVar(&t.handlers, "n", 100, "how many requests may be under way at a time")
	fs.StringVar(&t.mode, "mode", modeHostpool, modeHelp+", or multicast (all of them)")
	fs.Float64Var(&t.sample, "sample", 1, "the share of messages to send, from 0 to 1; the others are finished")
	fs.IntVar(&t.statusEvery, "status-every", 250, "log how long requests take, once for so many of them (0: never)")
}

func (t *toHTTP) check() error {
	if t.topic == "" {
		return usagef("--topic is needed")
	}
	if err := t.source.check(t.topic); err != nil {
		return err
	}
	if err := t.web.check(); err != nil {
		return err
	}
	if err := choice("mode", t.mode, modeHostpool, modeRoundRobin, modeGreedy, modeMulticast); err != nil {
		return err
	}
	switch {
	case len(t.gets) == 0 && len(t.posts) == 0:
		return usagef("--get or --post is needed")
	case len(t.gets) > 0 && len(t.posts) > 0:
		return usagef("give --get or --post, not both")
	case t.contentType == "":
		return usagef("--content-type: want a type")
	case t.contentType != defaultContentType && len(t.posts) == 0:
		return usagef("--content-type is for --post")
	case t.sample < 0 || t.sample > 1:
		return usagef("--sample %v: want 0 to 1", t.sample)
	case t.handlers < 1:
		return usagef("--n %d: want at least 1", t.handlers)
	}
	return t.checkRequests()
}

// checkRequests checks addresses and headers, so that a mistake shows before
// the first message does.
func (t *toHTTP) checkRequests() (err error) {
	if t.headers, err = parseHeaders(t.headerLines); err != nil {
		return err
	}
	for _, addr := range t.gets {
		if strings.Count(strings.ReplaceAll(addr, "%%", ""), "%s") != 1 {
			return usagef("--get %q: want %%s in it once, where the message stands", addr)
		}
	}
	for _, addr := range slices.Concat(t.gets, t.posts) {
		u, err := url.Parse(fillIn(addr, nil))
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return usagef("%q: want an address such as http://127.0.0.1:8080/", addr)
		}
	}
	return nil
}

// fillIn puts a message where %s stands; %% is a percent sign, as in NSQ's own,
// and so is every other.
func fillIn(addr string, body []byte) string {
	return strings.NewReplacer("%%", "%", "%s", url.QueryEscape(string(body))).Replace(addr)
}

// parseHeaders reads lines of 'NAME: VALUE'.
func parseHeaders(lines []string) (http.Header, error) {
	headers := make(http.Header)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if name == "" || value == "" {
			return nil, usagef("--header %q: want 'NAME: VALUE'", line)
		}
		headers.Set(name, value)
	}
	return headers, nil
}

func (t *toHTTP) run(ctx context.Context, env Env) error {
	addrs := t.posts
	if len(t.gets) > 0 {
		addrs = t.gets
	}
	t.http = t.client(t.handlers)
	t.pool = newPool(t.mode, addrs)
	t.statuses = newStatuses(t.statusEvery, addrs, log.New(env.Err, "", log.LstdFlags))
	return t.consume(ctx, env, []string{t.topic}, func(_ string, c *nsq.Consumer) { c.AddConcurrentHandlers(t, t.handlers) })
}

// HandleMessage sends one message; an error is the end of this attempt.
func (t *toHTTP) HandleMessage(m *nsq.Message) error {
	if t.sample < 1 && rand.Float64() >= t.sample {
		return nil
	}
	begin := time.Now()
	if t.mode == modeMulticast {
		for _, target := range t.pool.targets {
			if err := t.sendTo(target, m.Body); err != nil {
				return err
			}
		}
	} else if err := t.sendTo(t.pool.take(), m.Body); err != nil {
		return err
	}
	t.statuses.all.note(time.Since(begin))
	return nil
}

func (t *toHTTP) sendTo(target *target, body []byte) error {
	begin := time.Now()
	err := t.send(target.addr, body)
	took := time.Since(begin)
	t.pool.put(target, took, err)
	if err == nil {
		t.statuses.each[target.index].note(took)
	}
	return err
}

// send makes one request. The utility's own end does not cut it short.
func (t *toHTTP) send(addr string, body []byte) error {
	method, content := http.MethodPost, io.Reader(bytes.NewReader(body))
	if len(t.gets) > 0 {
		method, content = http.MethodGet, nil
		addr = fillIn(addr, body)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, addr, content)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", userAgent("nsq_to_http"))
	if method == http.MethodPost {
		req.Header.Set("Content-Type", t.contentType)
	}
	maps.Copy(req.Header, t.headers)
	if host := t.headers.Get("Host"); host != "" {
		req.Host = host // net/http takes it from nowhere else
	}
	resp, err := t.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil { // or the connection is not used again
		return fmt.Errorf("read answer of %s: %w", req.URL.Host, err)
	}
	if resp.StatusCode == http.StatusOK || method == http.MethodPost && resp.StatusCode/100 == 2 {
		return nil
	}
	return fmt.Errorf("%s answered %d", req.URL.Host, resp.StatusCode)
}
