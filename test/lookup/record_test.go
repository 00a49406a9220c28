package lookup

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorder stands between a real nsqd and a real nsqlookupd.
type recorder struct {
	mu   sync.Mutex
	r    recording
	last time.Time
}

func (r *recorder) add(kind, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.r, r.last = append(r.r, entry{kind, text}), time.Now()
}

// quiet waits until nothing has been said for a while.
func (r *recorder) quiet() {
	time.Sleep(300 * time.Millisecond)
	for {
		r.mu.Lock()
		rest := time.Since(r.last)
		r.mu.Unlock()
		if rest > 300*time.Millisecond {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// tcp passes one connection on.
func (r *recorder) tcp(l net.Listener, to string) {
	in, err := l.Accept()
	if err != nil {
		return
	}
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	go func() {
		defer in.Close()
		for b := bufio.NewReader(out); ; {
			a, err := answer(b)
			if err != nil {
				return
			}
			r.add("<", a)
			io.WriteString(in, a)
		}
	}()
	defer out.Close()
	b := bufio.NewReader(in)
	for first := true; ; first = false {
		c, err := command(b, first)
		if err != nil {
			return
		}
		r.add(">", c)
		io.WriteString(out, c)
	}
}

// http passes requests on.
func (r *recorder) http(to string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		dump, err := httputil.DumpRequest(req, true)
		if err != nil {
			return
		}
		r.add("ask", string(dump))
		res, err := http.Get("http://" + to + req.URL.RequestURI())
		if err != nil {
			return
		}
		defer res.Body.Close()
		if dump, err = httputil.DumpResponse(res, true); err != nil {
			return
		}
		r.add("told", string(dump))
		head, body, _ := strings.Cut(string(dump), "\r\n\r\n")
		for _, line := range strings.Split(head, "\r\n")[1:] {
			name, value, _ := strings.Cut(line, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(res.StatusCode)
		io.WriteString(w, body)
	})
}

// spawn runs a program until the test ends or stop is called.
func spawn(t *testing.T, name string, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cmd.Process.Signal(os.Interrupt)
			cmd.Wait()
		})
	}
	t.Cleanup(stop)
	return stop
}

// TestRecord makes the recording anew, of the programs that the environment
// names. They use fixed ports: the node's own stand in the recording.
func TestRecord(t *testing.T) {
	nsqd, nsqlookupd := os.Getenv("TIDINGS_RECORD_NSQD"), os.Getenv("TIDINGS_RECORD_NSQLOOKUPD")
	if nsqd == "" || nsqlookupd == "" {
		t.Log("TIDINGS_RECORD_NSQD and TIDINGS_RECORD_NSQLOOKUPD name no programs: the recording stays")
		return
	}
	// nsqlookupd says that it speaks HTTP at 127.0.0.2, where the recorder is
	spawn(t, nsqlookupd, "-tcp-address=127.0.0.1:14160", "-http-address=127.0.0.1:14161", "-broadcast-address=127.0.0.2", "-log-level=error")
	const lookups = "http://127.0.0.1:14161"
	until(t, "nsqlookupd", func() bool { _, err := http.Get(lookups + "/ping"); return err == nil })
	r := &recorder{}
	tcp, web := listen(t), must(net.Listen("tcp", "127.0.0.2:14161"))
	defer tcp.Close()
	go r.tcp(tcp, "127.0.0.1:14160")
	server := &http.Server{Handler: r.http("127.0.0.1:14161")}
	go server.Serve(web)
	defer server.Close()

	s := &scene{t: t, tcp: "127.0.0.1:14150", http: "127.0.0.1:14151"}
	for i, st := range stages {
		r.add("stage", st.name)
		for _, path := range st.post {
			r.add("post", path)
			if code, got := ask(t, "POST", lookups+path, ""); code != 200 {
				t.Fatal(code, got)
			}
		}
		if i == 0 {
			s.stop = spawn(t, nsqd, "-data-path="+t.TempDir(), "-tcp-address=127.0.0.1:14150", "-http-address=127.0.0.1:14151",
				"-broadcast-address=nsqd.example", "-lookupd-tcp-address="+tcp.Addr().String(), "-log-level=error")
			until(t, "nsqd", func() bool { _, err := http.Get("http://" + s.http + "/ping"); return err == nil })
		}
		st.do(s)
		if st.name == "a ping" {
			time.Sleep(16 * time.Second)
		}
		r.quiet()
		for _, path := range st.look {
			code, got := ask(t, "GET", lookups+path, "")
			r.add("look", path)
			r.add("found", fmt.Sprintf("%d %s", code, alike(got)))
		}
	}
	if err := os.MkdirAll(filepath.Dir(recordingFile), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recordingFile, []byte(r.r.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
