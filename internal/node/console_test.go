package node_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

// TestConsoleBesideTheAPI shows who answers what at the admin address.
func TestConsoleBesideTheAPI(t *testing.T) {
	c := settings(t)
	c.AdminReadOnly = true
	r := start(t, c, vfs.Default())
	for path, want := range map[string]struct {
		status int
		kind   string
		text   string
	}{
		"/":                    {http.StatusOK, "text/html", `name="tidings-read-only" content="true"`},
		"/topics/a%23b?tab=x":  {http.StatusOK, "text/html", `<div id="app">`},
		"/assets/app.0.js":     {http.StatusNotFound, "text/plain", ""},
		"/api/v1/self":         {http.StatusOK, "application/json", `"read_only":true`},
		"/api/v1/no/such/path": {http.StatusNotFound, "application/json", `"code"`},
		"/healthz":             {http.StatusOK, "text/plain", "ok"},
	} {
		resp, err := http.Get("http://" + r.Addrs().Admin + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want.status || !strings.HasPrefix(resp.Header.Get("Content-Type"), want.kind) || !strings.Contains(string(body), want.text) {
			t.Errorf("%s: %d %s %v\n%.300s", path, resp.StatusCode, resp.Header.Get("Content-Type"), err, body)
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}
