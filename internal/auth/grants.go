package auth

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"time"
)

// The permissions that a grant may give.
const (
	publish   = "publish"
	subscribe = "subscribe"
)

// Grants is what a client may do, until they expire. They do not change.
type Grants struct {
	// Identity and IdentityURL name the client, as the auth server says.
	Identity, IdentityURL string
	// Expires is when the auth server must be asked again.
	Expires time.Time
	rules   []rule
}

// rule is one authorization: what a client may do on topics and channels that
// match.
type rule struct {
	topic              *regexp.Regexp
	channels           []*regexp.Regexp
	publish, subscribe bool
}

// answer is what an auth server says.
type answer struct {
	TTL            int64           `json:"ttl"` // seconds
	Authorizations []authorization `json:"authorizations"`
	Identity       string          `json:"identity"`
	IdentityURL    string          `json:"identity_url"`
}

type authorization struct {
	Topic       string   `json:"topic"`
	Channels    []string `json:"channels"`
	Permissions []string `json:"permissions"`
}

// parse reads an auth server's answer that came at now. An answer with one
// wrong part is no answer, as with nsqd.
func parse(body []byte, now time.Time) (*Grants, error) {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	g := &Grants{Identity: a.Identity, IdentityURL: a.IdentityURL}
	for _, from := range a.Authorizations {
		r, err := from.rule()
		if err != nil {
			return nil, err
		}
		g.rules = append(g.rules, r)
	}
	if a.TTL <= 0 {
		return nil, fmt.Errorf("ttl is %d, and must be greater than 0", a.TTL)
	}
	const longest = math.MaxInt64 / int64(time.Second)
	g.Expires = now.Add(time.Duration(min(a.TTL, longest)) * time.Second)
	return g, nil
}

func (a *authorization) rule() (r rule, err error) {
	for _, p := range a.Permissions {
		switch p {
		case publish:
			r.publish = true
		case subscribe:
			r.subscribe = true
		default:
			return r, fmt.Errorf("permission %q is not known", p)
		}
	}
	if r.topic, err = regexp.Compile(a.Topic); err != nil {
		return r, fmt.Errorf("topic %q: %w", a.Topic, err)
	}
	for _, c := range a.Channels {
		re, err := regexp.Compile(c)
		if err != nil {
			return r, fmt.Errorf("channel %q: %w", c, err)
		}
		r.channels = append(r.channels, re)
	}
	return r, nil
}

// Len is the number of grants; nil has none.
func (g *Grants) Len() int {
	if g == nil {
		return 0
	}
	return len(g.rules)
}

// Allows reports whether the client may subscribe to a channel, or publish to a
// topic if channel is empty. As in nsqd, the expressions need not match whole
// names, and for publishing one for channels must match the empty name.
func (g *Grants) Allows(topic, channel string) bool {
	return slices.ContainsFunc(g.rules, func(r rule) bool {
		if channel == "" && !r.publish || channel != "" && !r.subscribe || !r.topic.MatchString(topic) {
			return false
		}
		return slices.ContainsFunc(r.channels, func(re *regexp.Regexp) bool { return re.MatchString(channel) })
	})
}

// Everything reports whether one grant gives both permissions on all topics and
// all channels, in so many words: with the expression ".*". It is asked for
// what concerns the whole node, for which nsqd's contract has no grant.
func (g *Grants) Everything() bool {
	return slices.ContainsFunc(g.rules, func(r rule) bool {
		return r.publish && r.subscribe && whole(r.topic) && slices.ContainsFunc(r.channels, whole)
	})
}

func whole(re *regexp.Regexp) bool {
	s := re.String()
	return s == ".*" || s == "^.*$"
}
