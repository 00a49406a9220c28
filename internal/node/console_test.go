package node_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

// TestConsoleBesideTheAPI shows who answers what at the admin address and at
// nsqadmin's.
func TestConsoleBesideTheAPI(t *testing.T) {
	c := settings(t)
	c.AdminReadOnly = true
	r := start(t, c, vfs.Default())
	admin, nsqadmin := "http://"+r.Addrs().Admin, "http://"+r.Addrs().NSQAdmin
	for at, want := range map[string]struct {
		status int
		kind   string
		text   string
	}{
		admin + "/":                       {http.StatusOK, "text/html", `name="tidings-read-only" content="true"`},
		admin + "/topics/a%23b?tab=x":     {http.StatusOK, "text/html", `<div id="app">`},
		admin + "/assets/app.0.js":        {http.StatusNotFound, "text/plain", ""},
		admin + "/api/v1/self":            {http.StatusOK, "application/json", `"read_only":true`},
		admin + "/api/v1/no/such/path":    {http.StatusNotFound, "application/json", `"code"`},
		nsqadmin + "/":                    {http.StatusOK, "text/html", `<div id="app">`},
		nsqadmin + "/topics/a/channels/b": {http.StatusOK, "text/html", `<div id="app">`},
		nsqadmin + "/api/v1/self":         {http.StatusOK, "application/json", `"read_only":true`},
		nsqadmin + "/api/topics":          {http.StatusOK, "application/json", `"message":""`},
		nsqadmin + "/debug/pprof/":        {http.StatusOK, "text/html", `<div id="app">`}, // the page says that there is nothing
		admin + "/healthz":                {http.StatusOK, "text/plain", "ok"},
	} {
		resp, err := http.Get(at)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want.status || !strings.HasPrefix(resp.Header.Get("Content-Type"), want.kind) || !strings.Contains(string(body), want.text) {
			t.Errorf("%s: %d %s %v\n%.300s", at, resp.StatusCode, resp.Header.Get("Content-Type"), err, body)
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}
