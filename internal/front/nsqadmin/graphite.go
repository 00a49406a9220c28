package nsqadmin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"time"
)

// graphite answers the rate of a metric, as graphite has it for the interval
// before the last: messages per second, as text.
func (f *Front) graphite(r *http.Request, _ params) (any, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case err != nil:
		return nil, bad("INVALID_REQUEST")
	case q.Get("metric") != "rate":
		return nil, bad("INVALID_ARG_METRIC")
	case !q.Has("target"):
		return nil, bad("INVALID_ARG_TARGET")
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerPatience)
	defer cancel()
	rate, err := f.rate(ctx, q.Get("target"))
	if err != nil {
		f.log.Error("ask graphite", "error", err)
		return nil, &httpError{http.StatusInternalServerError, "INTERNAL_ERROR"}
	}
	text := "N/A"
	if rate >= 0 {
		text = fmt.Sprintf("%.2f", rate/float64(f.o.StatsdInterval/time.Second))
	}
	return struct {
		Rate string `json:"rate"`
	}{text}, nil
}

// renderURL is graphite's /render.
func (f *Front) renderURL() url.URL {
	at := *f.o.GraphiteURL
	at.Path, at.RawPath, at.RawQuery, at.Fragment = path.Join("/", at.Path, "render"), "", "", ""
	return at
}

// rate is graphite's first number for a target.
func (f *Front) rate(ctx context.Context, target string) (float64, error) {
	if f.o.GraphiteURL == nil {
		return 0, errors.New("no --graphite-url is given")
	}
	every := int64(f.o.StatsdInterval / time.Second)
	at := f.renderURL()
	at.RawQuery = url.Values{
		"from": {fmt.Sprintf("-%dsec", 2*every)}, "until": {fmt.Sprintf("-%dsec", every)},
		"format": {"json"}, "target": {target},
	}.Encode()
	text, err := f.client.do(ctx, http.MethodGet, at.String(), "")
	if err != nil {
		return 0, err
	}
	var series []struct {
		DataPoints [][]*float64 `json:"datapoints"`
	}
	if err := json.Unmarshal(text, &series); err != nil {
		return 0, err
	}
	if len(series) == 0 || len(series[0].DataPoints) == 0 || len(series[0].DataPoints[0]) == 0 || series[0].DataPoints[0][0] == nil {
		return 0, fmt.Errorf("%s: no data points", at.Redacted())
	}
	return *series[0].DataPoints[0][0], nil
}

// render is graphite's own /render, for browsers that do not reach it. Nothing
// else of graphite can be reached by it.
func (f *Front) render() http.Handler {
	target := f.renderURL()
	return &httputil.ReverseProxy{
		Transport: f.client.http.Transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			to := target
			to.RawQuery, to.User = p.In.URL.RawQuery, nil
			p.Out.URL, p.Out.Host = &to, ""
			p.Out.Header.Del("Cookie") // of this site, as the next
			p.Out.Header.Del("Authorization")
			if u := target.User; u != nil {
				password, _ := u.Password()
				p.Out.SetBasicAuth(u.Username(), password)
			}
			p.SetXForwarded()
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			f.fail(w, r, &httpError{http.StatusBadGateway, "UPSTREAM_ERROR: " + err.Error()})
		},
	}
}
