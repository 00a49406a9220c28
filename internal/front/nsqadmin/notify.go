package nsqadmin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

const (
	// noticesMax is how many actions wait to be told; further ones are lost, and
	// logged as such.
	noticesMax = 1000
	// farewell is how long a stopping front goes on telling.
	farewell = 2 * time.Second
)

// notice is an action as it is told.
type notice struct {
	Action    string `json:"action"`
	Topic     string `json:"topic"`
	Channel   string `json:"channel,omitempty"`
	Node      string `json:"node,omitempty"`
	Timestamp int64  `json:"timestamp"` // seconds since 1970
	User      string `json:"user,omitempty"`
	RemoteIP  string `json:"remote_ip"` // with its port
	UserAgent string `json:"user_agent"`
	URL       string `json:"url"` // of the request
	Via       string `json:"via"` // this machine
}

// tell logs an action, and queues it for the notification endpoint.
func (f *Front) tell(r *http.Request, n notice) {
	at := url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	if r.TLS != nil || r.Header.Get("X-Scheme") == "https" {
		at.Scheme = "https"
	}
	n.User, _, _ = r.BasicAuth()
	n.Timestamp, n.RemoteIP, n.UserAgent, n.URL, n.Via = f.o.Clock().Unix(), r.RemoteAddr, r.UserAgent(), at.String(), f.host
	f.log.Info("action", "action", n.Action, "topic", n.Topic, "channel", n.Channel, "node", n.Node,
		"remote", n.RemoteIP, "user", n.User, "acl_user", r.Header.Get(f.o.ACLHeader))
	if f.o.NotificationURL == "" {
		return
	}
	select {
	case f.notices <- n:
	default:
		f.log.Warn("an action was not told: too many wait for the notification endpoint", "action", n.Action, "topic", n.Topic)
	}
}

// notify tells actions, in order, until ctx ends; what waits then is told if
// that is soon done.
func (f *Front) notify(ctx context.Context) {
	for {
		select {
		case n := <-f.notices:
			f.post(context.WithoutCancel(ctx), n)
			continue
		case <-ctx.Done():
		}
		break
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	for {
		select {
		case n := <-f.notices:
			f.post(last, n)
		default:
			return
		}
	}
}

func (f *Front) post(ctx context.Context, n notice) {
	if err := f.send(ctx, n); err != nil {
		f.log.Error("tell the notification endpoint", "action", n.Action, "topic", n.Topic, "error", err)
	}
}

func (f *Front) send(ctx context.Context, n notice) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.o.NotificationURL, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", f.client.agent)
	res, err := f.client.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("got response %s", res.Status)
	}
	return nil
}
