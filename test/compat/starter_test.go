package compat

import (
	"os"
	"testing"
)

// startServer returns the addresses of the server under test: the one named by
// TIDINGS_COMPAT_TCP and TIDINGS_COMPAT_HTTP, or a node of our own on port 0
// that lives as long as the test.
func startServer(t *testing.T) (tcpAddr, httpAddr string) {
	t.Helper()
	tcpAddr, httpAddr = os.Getenv("TIDINGS_COMPAT_TCP"), os.Getenv("TIDINGS_COMPAT_HTTP")
	if tcpAddr != "" && httpAddr != "" {
		return tcpAddr, httpAddr
	}
	return startOwn(t)
}

// againstNSQD says that the server under test is a real nsqd, where the
// deliberate differences take nsqd's side.
func againstNSQD() bool { return os.Getenv("TIDINGS_COMPAT_NSQD") == "1" }

// startOwn starts our own server. Wired to internal/node when that exists.
func startOwn(t *testing.T) (tcpAddr, httpAddr string) {
	t.Helper()
	t.Skip("no server: set TIDINGS_COMPAT_TCP and TIDINGS_COMPAT_HTTP")
	return "", ""
}
