package cli

import (
	"net"
	"net/http"
	"testing"
	"time"
)

// A node that takes the question and says nothing does not hold up the shell: it
// is asked for a second, not for the half minute of --timeout.
func TestCompletionIsBrief(t *testing.T) {
	contexts(t, "")
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := newTopicInfo(streams{})
	srv := &server{flag: "server", port: defaultPort, addr: l.Addr().String(), timeout: 30 * time.Second, http: &http.Client{}}
	ctx, cancel := srv.briefly(cmd)
	defer cancel()
	if srv.timeout != completePatience {
		t.Errorf("asks for %s", srv.timeout)
	}
	cancel()
	cmd.SetContext(ctx) // the time is over
	if names, directive := complete(cmd, srv, nil, 1); len(names) > 0 || directive != 4 {
		t.Error(names, directive)
	}
}
