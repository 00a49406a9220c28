package tools_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/tools"
)

// linesIn are the lines of all files below a folder, sorted.
func linesIn(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")...)
	}
	slices.Sort(lines)
	return lines
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: %s", what, d)
	}
}

func TestToFileFromNode(t *testing.T) {
	s := startNode(t)
	lines := numbered(1000)
	s.topic(t, "orders", "nsq_to_file", lines...)
	dir := t.TempDir()
	hangup := make(chan os.Signal, 1)
	r := start(t, nil, hangup, "nsq_to_file", "-topic", "orders", "-output-dir", dir, "-nsqd-tcp-address="+s.tcp,
		"-sync-interval=20ms", "-filename-format=<TOPIC>.<HOST><REV>.<DATETIME>.log", "--host-identifier=<SHORT_HOST>-1", "-datetime-format=%Y", "-rotate-size=1000")
	s.finished(t, "orders", "nsq_to_file", 1000)
	same(t, "while it runs", linesIn(t, dir), lines)
	hangup <- syscall.SIGHUP
	eventually(t, "SIGHUP closes the file", func() bool { return len(hangup) == 0 })
	s.publish(t, "orders", "last")
	s.finished(t, "orders", "nsq_to_file", 1001)
	r.end()
	same(t, "after its end", linesIn(t, dir), append([]string{"last"}, lines...))
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	short, _, _ := strings.Cut(host, ".")
	files, _ := os.ReadDir(dir)
	name := regexp.MustCompile(`^orders\.` + regexp.QuoteMeta(short) + `-1-\d{6}\.\d{4}\.log$`)
	if len(files) < 7 || !name.MatchString(files[0].Name()) {
		t.Errorf("%d files, the first is %s", len(files), files[0].Name())
	}
}

func TestToFileFindsTopics(t *testing.T) {
	s := startNode(t)
	l := startLookup(t, s)
	dead := httptest.NewServer(nil)
	dead.Close()
	l.set("audit.a", "other", "audit.b")
	for _, topic := range []string{"audit.a", "audit.b", "audit.c", "other"} {
		s.topic(t, topic, "c", "of "+topic)
	}
	dir := t.TempDir()
	r := start(t, nil, nil, "nsq_to_file", "-topic-pattern", "^audit", "-output-dir", dir, "-work-dir", filepath.Join(dir, "work"), "-channel=c",
		"-lookupd-http-address", l.http, "-lookupd-http-address", strings.TrimPrefix(dead.URL, "http://"),
		"-topic-refresh=10ms", "-sync-interval=10ms", "-skip-empty-files", "-consumer-opt=lookupd_poll_interval,10ms")
	s.finished(t, "audit.a", "c", 1)
	s.finished(t, "audit.b", "c", 1)
	l.set("audit.a", "audit.b", "audit.c")
	s.finished(t, "audit.c", "c", 1)
	if got := s.channel(t, "other", "c"); got.unfinished() != 1 {
		t.Errorf("what does not match was consumed: %+v", got)
	}
	r.end()
	if err := os.RemoveAll(filepath.Join(dir, "work")); err != nil {
		t.Fatal(err)
	}
	same(t, "finished files", linesIn(t, dir), []string{"of audit.a", "of audit.b", "of audit.c"})
	if !strings.Contains(r.errs.String(), "ERROR: look up topics:") {
		t.Error("nothing is said of the nsqlookupd that does not answer")
	}
}

func TestToFileEndsWhenItCannotWrite(t *testing.T) {
	s := startNode(t)
	s.topic(t, "orders", "nsq_to_file", "a", "b")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, nil, nil, "nsq_to_file", "-topic=orders", "-output-dir", file, "-nsqd-tcp-address", s.tcp)
	if err := r.wait(); err == nil || errors.Is(err, tools.ErrUsage) {
		t.Errorf("ends with %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	const gone = "127.0.0.1:1"
	for name, more := range map[string]string{
		"nsq_to_file": "", "nsq_tail": "", "nsq_to_http": "-post http://h/", "nsq_to_nsq": "-destination-nsqd-tcp-address " + gone, "to_nsq": "",
	} {
		r := start(t, strings.NewReader("a"), nil, name, append(words("-topic=t -nsqd-tcp-address "+gone), words(more)...)...)
		if err := r.wait(); !errors.Is(err, tools.ErrUnreachable) {
			t.Errorf("%s ends with %v", name, err)
		}
	}
	for _, from := range []string{"-nsqd-http-address", "-lookupd-http-address"} {
		r := start(t, nil, nil, "nsq_stat", words("-topic t -channel c "+from+" "+gone)...)
		if err := r.wait(); !errors.Is(err, tools.ErrUnreachable) {
			t.Errorf("nsq_stat %s ends with %v", from, err)
		}
	}
}

func TestTail(t *testing.T) {
	s := startNode(t)
	s.topic(t, "orders", "")
	r := start(t, nil, nil, "nsq_tail", "-topic=orders", "-topic", "audit", "-print-topic", "--nsqd-tcp-address", s.tcp)
	var own string
	eventually(t, "a consumer on both topics", func() bool {
		for _, topic := range []string{"orders", "audit"} {
			all := s.stats(t, topic)
			if len(all) != 1 || all[0].Clients != 1 {
				return false
			}
			own = all[0].Name
		}
		return true
	})
	if !regexp.MustCompile(`^tail\d{6}#ephemeral$`).MatchString(own) {
		t.Errorf("its channel is called %s", own)
	}
	s.publish(t, "orders", "one", "two")
	s.publish(t, "audit", "three")
	eventually(t, "three lines", func() bool { return strings.Count(r.out.String(), "\n") == 3 })
	r.end()
	got := strings.Split(r.out.String(), "\n")
	slices.Sort(got)
	same(t, "lines", got, []string{"", "audit | three", "orders | one", "orders | two"})
	eventually(t, "its channel is gone", func() bool { return len(s.stats(t, "orders")) == 0 })
}

func TestTailEndsAfterN(t *testing.T) {
	s := startNode(t)
	s.topic(t, "orders", "c", numbered(100)...)
	l := startLookup(t, s)
	l.set("orders")
	r := start(t, nil, nil, "nsq_tail", "-topic=orders", "-channel", "c", "-n", "3", "-lookupd-http-address", "http://"+l.http)
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(r.out.String(), "\n"); got != 3 {
		t.Errorf("%d lines, want 3", got)
	}
	eventually(t, "the others are still there", func() bool { return s.channel(t, "orders", "c").unfinished() == 97 })
	if n := s.channel(t, "orders", "c").Requeued; n > 0 {
		t.Errorf("%d messages were taken and given back", n)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestTailEndsWithItsReader(t *testing.T) {
	s := startNode(t)
	s.topic(t, "orders", "c", "a")
	err := tool(t, "nsq_tail").Run(t.Context(), tools.Env{Out: brokenPipe{}, Err: io.Discard}, words("-topic orders -channel c -nsqd-tcp-address "+s.tcp))
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("ends with %v", err)
	}
	eventually(t, "what nobody has read is still there", func() bool { return s.channel(t, "orders", "c").unfinished() == 1 })
}

func TestPublish(t *testing.T) {
	a, b := startNode(t), startNode(t)
	a.topic(t, "orders", "c")
	b.topic(t, "orders", "c")
	lines := numbered(3000)
	r := start(t, strings.NewReader(strings.Join(lines, ",")+"\n"), nil, "to_nsq", "-delimiter=,", "-topic=orders", "-nsqd-tcp-address", a.tcp, "--nsqd-tcp-address="+b.tcp)
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	for _, s := range []server{a, b} {
		r := start(t, nil, nil, "nsq_tail", "-topic=orders", "-channel=c", "-n=3000", "-nsqd-tcp-address", s.tcp)
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		same(t, "in order", strings.Fields(r.out.String()), lines)
	}
}

func TestPublishStopsAtARefusal(t *testing.T) {
	s := startNode(t)
	r := start(t, strings.NewReader("a\n"+strings.Repeat("x", 2<<20)+"\nb\n"), nil, "to_nsq", "-topic=orders", "-nsqd-tcp-address", s.tcp)
	if err := r.wait(); err == nil || !strings.Contains(err.Error(), "E_BAD_MESSAGE") {
		t.Errorf("ends with %v", err)
	}
}

func TestPublishEndsWhenAsked(t *testing.T) {
	s := startNode(t)
	in, feed := io.Pipe()
	defer feed.Close()
	r := start(t, in, nil, "to_nsq", "-topic=orders", "-rate=1000", "-nsqd-tcp-address", s.tcp)
	if _, err := io.WriteString(feed, "a\nb\n"); err != nil {
		t.Fatal(err)
	}
	s.topic(t, "orders", "c")
	s.finishedOrWaiting(t, 2)
	r.end()
}

// finishedOrWaiting waits until channel c of orders has had so many messages.
func (s server) finishedOrWaiting(t *testing.T, n int) {
	t.Helper()
	eventually(t, "messages arrive", func() bool { return s.channel(t, "orders", "c").Messages == n })
}

func TestStat(t *testing.T) {
	a, b := startNode(t), startNode(t)
	a.topic(t, "orders", "c", numbered(10)...)
	b.topic(t, "orders", "c", numbered(5)...)
	l := startLookup(t, a, b)
	l.set("orders")
	for _, from := range []string{"-nsqd-http-address " + a.http + " -nsqd-http-address " + b.http, "-lookupd-http-address " + l.http} {
		r := start(t, nil, nil, "nsq_stat", words("-topic orders -channel c -interval 10ms -count 30 "+from)...)
		if err := r.wait(); err != nil {
			t.Fatal(err)
		}
		head := "------rate------+----------------depth----------------+--------------metadata---------------\n" +
			"ingress  egress |   total     mem    disk inflt   def |     req     t-o         msgs clients\n"
		text := r.out.String()
		if !strings.HasPrefix(text, head) || strings.Count(text, head) != 2 {
			t.Errorf("it prints\n%s", text)
		}
		lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(text), "\n"), func(l string) bool { return strings.Contains(head, l) })
		if len(lines) != 30 {
			t.Errorf("%d lines, want 30", len(lines))
		}
		f := strings.Fields(strings.ReplaceAll(lines[0], "|", " "))
		if len(f) != 11 || f[0] != "0" || f[1] != "0" || f[2] != "15" || f[9] != "15" || f[10] != "0" {
			t.Errorf("a line is %q", lines[0])
		}
	}
	r := start(t, nil, nil, "nsq_stat", words("-topic orders -channel d -nsqd-http-address "+a.http)...)
	if err := r.wait(); !errors.Is(err, tools.ErrNotFound) {
		t.Errorf("for an unknown channel it ends with %v", err)
	}
	r = start(t, nil, nil, "nsq_stat", words("-topic gone -channel d -lookupd-http-address "+l.http)...)
	if err := r.wait(); !errors.Is(err, tools.ErrNotFound) {
		t.Errorf("for an unknown topic it ends with %v", err)
	}
	r = start(t, nil, nil, "nsq_stat", words("-topic orders -channel c -interval 10ms -nsqd-http-address 127.0.0.1:1 -nsqd-http-address "+a.http)...)
	eventually(t, "a line although one node is gone", func() bool { return strings.Count(r.out.String(), "\n") > 2 })
	r.end()
	if !strings.Contains(r.errs.String(), "nsq_stat: ") {
		t.Error("nothing is said of the node that does not answer")
	}
}

// site is an HTTP server that notes what it is sent.
type site struct {
	url string

	mu       sync.Mutex
	got      []string
	requests []*http.Request
	refuse   atomic.Int32 // so many requests are answered 500
}

func startSite(t *testing.T, status int) *site {
	t.Helper()
	s := &site{}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if s.refuse.Add(-1) >= 0 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.Method == http.MethodGet {
			body = []byte(r.URL.Query().Get("q"))
		}
		s.got = append(s.got, string(body))
		s.requests = append(s.requests, r)
		w.WriteHeader(status)
	}))
	t.Cleanup(web.Close)
	s.url = web.URL
	return s
}

func (s *site) sorted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.got))
}

// soon makes a failed message come back at once.
const soon = " -consumer-opt=default_requeue_delay,0 -consumer-opt=max_backoff_duration,10ms -consumer-opt=backoff_multiplier,1ms "

func TestToHTTPPosts(t *testing.T) {
	s, to := startNode(t), startSite(t, http.StatusCreated)
	lines := numbered(500)
	s.topic(t, "orders", "nsq_to_http", lines...)
	r := start(t, nil, nil, "nsq_to_http", append(words("-topic orders -post "+to.url+"/in -content-type text/plain -status-every=100 -nsqd-tcp-address "+s.tcp), "-header", "X-Key: a: b", "-header=Host: elsewhere")...)
	s.finished(t, "orders", "nsq_to_http", 500)
	r.end()
	same(t, "bodies", to.sorted(), lines)
	req := to.requests[0]
	if h := req.Header; req.Method != http.MethodPost || req.URL.Path != "/in" || h.Get("Content-Type") != "text/plain" || h.Get("X-Key") != "a: b" ||
		req.Host != "elsewhere" || !strings.HasPrefix(h.Get("User-Agent"), "nsq_to_http/1.3.0 ") {
		t.Errorf("%s %s %v", req.Method, req.URL, h)
	}
	if n := strings.Count(r.errs.String(), "[aggregate]: finished 100 - 99th: "); n != 5 {
		t.Errorf("%d lines of status, want 5", n)
	}
}

func TestToHTTPGets(t *testing.T) {
	s, to := startNode(t), startSite(t, http.StatusOK)
	s.topic(t, "orders", "c", "a b", "c&d=e", "ü%")
	start(t, nil, nil, "nsq_to_http", words("-topic orders -channel c -get "+to.url+"/x%20y?q=%s -nsqd-tcp-address "+s.tcp)...)
	s.finished(t, "orders", "c", 3)
	same(t, "messages", to.sorted(), []string{"a b", "c&d=e", "ü%"})
	if p := to.requests[0].URL.Path; p != "/x y" {
		t.Errorf("path %s", p)
	}
}

func TestToHTTPTriesAgain(t *testing.T) {
	s := startNode(t)
	for _, row := range []struct {
		how    string
		status int
		refuse int32
		reach  bool
	}{
		{"-post ", http.StatusOK, 2, true},
		{"-post ", http.StatusFound, 0, true}, // without Location it stays 302
		{"-get ", http.StatusCreated, 0, true},
		{"-post ", http.StatusOK, httpAttempts, false},
	} {
		to := startSite(t, row.status)
		to.refuse.Store(row.refuse)
		topic := strings.ReplaceAll(t.Name(), "/", "-") + strings.TrimSpace(row.how) + http.StatusText(row.status)[:2] + string('a'+row.refuse)
		s.topic(t, topic, "nsq_to_http", "m")
		r := start(t, nil, nil, "nsq_to_http", words("-topic "+topic+" "+row.how+to.url+"/?q=%s -n=1 -nsqd-tcp-address "+s.tcp+soon)...)
		s.finished(t, topic, "nsq_to_http", 1)
		r.end()
		switch n := len(to.sorted()); {
		case row.status != http.StatusOK && n != httpAttempts:
			t.Errorf("%s with %d: tried %d times, want %d", row.how, row.status, n, httpAttempts)
		case row.status == http.StatusOK && (n == 1) != row.reach:
			t.Errorf("%s refused %d times: arrived %d times", row.how, row.refuse, n)
		}
	}
}

// httpAttempts is after how many attempts nsq_to_http gives up.
const httpAttempts = 5

func TestToHTTPModes(t *testing.T) {
	s := startNode(t)
	for mode, share := range map[string]struct{ least, most int }{
		"round-robin": {100, 100}, "hostpool": {100, 100}, "epsilon-greedy": {1, 199}, "multicast": {200, 200},
	} {
		one, two := startSite(t, http.StatusOK), startSite(t, http.StatusOK)
		topic := "orders-" + mode
		s.topic(t, topic, "nsq_to_http", numbered(200)...)
		r := start(t, nil, nil, "nsq_to_http", words("-topic "+topic+" -mode "+mode+" -post "+one.url+" -post "+two.url+" -nsqd-tcp-address "+s.tcp)...)
		s.finished(t, topic, "nsq_to_http", 200)
		r.end()
		a, b := len(one.sorted()), len(two.sorted())
		if a < share.least || b < share.least || a > share.most || b > share.most || mode != "multicast" && a+b != 200 {
			t.Errorf("%s: %d and %d", mode, a, b)
		}
	}
}

func TestToHTTPGoesRoundADeadHost(t *testing.T) {
	s, to := startNode(t), startSite(t, http.StatusOK)
	lines := numbered(50)
	s.topic(t, "orders", "nsq_to_http", lines...)
	start(t, nil, nil, "nsq_to_http", words("-topic orders -n 1 -post http://127.0.0.1:1/ -post "+to.url+" -nsqd-tcp-address "+s.tcp+soon)...)
	s.finished(t, "orders", "nsq_to_http", 50)
	same(t, "messages", to.sorted(), lines)
}

func TestToHTTPSamples(t *testing.T) {
	s, to := startNode(t), startSite(t, http.StatusOK)
	s.topic(t, "orders", "nsq_to_http", numbered(2000)...)
	start(t, nil, nil, "nsq_to_http", words("-topic orders -sample 0.25 -post "+to.url+" -nsqd-tcp-address "+s.tcp)...)
	s.finished(t, "orders", "nsq_to_http", 2000)
	if n := len(to.sorted()); n < 380 || n > 620 { // six standard deviations
		t.Errorf("%d of 2000 sent, want about 500", n)
	}
}

// drained reads a channel to its end.
func (s server) drained(t *testing.T, topic, channel, n string) []string {
	t.Helper()
	r := start(t, nil, nil, "nsq_tail", "-topic", topic, "-channel", channel, "-n", n, "-nsqd-tcp-address", s.tcp)
	if err := r.wait(); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(r.out.String(), "\n"), "\n")
	slices.Sort(got)
	return got
}

func TestToNSQ(t *testing.T) {
	from, to := startNode(t), startNode(t)
	lines := numbered(1000)
	from.topic(t, "orders", "nsq_to_nsq", lines...)
	from.topic(t, "audit", "nsq_to_nsq", "x")
	to.topic(t, "orders", "c")
	to.topic(t, "audit", "c")
	l := startLookup(t, from)
	l.set("orders", "audit")
	r := start(t, nil, nil, "nsq_to_nsq", words("-topic orders -topic audit -lookupd-http-address "+l.http+" -destination-nsqd-tcp-address "+to.tcp)...)
	from.finished(t, "orders", "nsq_to_nsq", 1000)
	from.finished(t, "audit", "nsq_to_nsq", 1)
	r.end()
	same(t, "orders", to.drained(t, "orders", "c", "1000"), lines)
	same(t, "audit", to.drained(t, "audit", "c", "1"), []string{"x"})
}

func TestToNSQDestinations(t *testing.T) {
	from, one, two := startNode(t), startNode(t), startNode(t)
	for mode, share := range map[string]struct{ least, most int }{"round-robin": {100, 100}, "hostpool": {100, 100}, "epsilon-greedy": {1, 199}} {
		from.topic(t, "orders-"+mode, "nsq_to_nsq", numbered(200)...)
		one.topic(t, "to-"+mode, "c")
		two.topic(t, "to-"+mode, "c")
		r := start(t, nil, nil, "nsq_to_nsq", words("-topic orders-"+mode+" -destination-topic to-"+mode+" -mode "+mode+" -nsqd-tcp-address "+from.tcp+
			" -destination-nsqd-tcp-address "+one.tcp+" -destination-nsqd-tcp-address "+two.tcp+" -status-every=200")...)
		from.finished(t, "orders-"+mode, "nsq_to_nsq", 200)
		r.end()
		a, b := one.channel(t, "to-"+mode, "c").Depth, two.channel(t, "to-"+mode, "c").Depth
		if a < share.least || b < share.least || a > share.most || b > share.most || a+b != 200 {
			t.Errorf("%s: %d and %d", mode, a, b)
		}
		if !strings.Contains(r.errs.String(), "[aggregate]: finished 200 - ") {
			t.Errorf("%s: no status", mode)
		}
	}
}

func TestToNSQFilters(t *testing.T) {
	from, to := startNode(t), startNode(t)
	from.topic(t, "orders", "nsq_to_nsq", `{"kind":"a","id":12345678901234567890,"x":1}`, `{"kind":"b"}`, `{"x":1}`, `no JSON`, `{"kind":"a"}`)
	to.topic(t, "orders", "c")
	r := start(t, nil, nil, "nsq_to_nsq", words("-topic orders -require-json-field kind -require-json-value a -whitelist-json-field id -whitelist-json-field kind -nsqd-tcp-address "+
		from.tcp+" -destination-nsqd-tcp-address "+to.tcp)...)
	from.finished(t, "orders", "nsq_to_nsq", 5)
	r.end()
	same(t, "what passes", to.drained(t, "orders", "c", "2"), []string{`{"id":12345678901234567890,"kind":"a"}`, `{"kind":"a"}`})
	if !strings.Contains(r.errs.String(), "ERROR: message ") {
		t.Error("nothing is said of the message that is dropped")
	}
}

func TestToNSQWaitsForItsDestination(t *testing.T) {
	from, to := startNode(t), startNode(t)
	lines := numbered(20)
	from.topic(t, "orders", "nsq_to_nsq", lines...)
	to.topic(t, "orders", "c")
	r := start(t, nil, nil, "nsq_to_nsq", words("-topic orders -mode round-robin -nsqd-tcp-address "+from.tcp+
		" -destination-nsqd-tcp-address "+to.tcp+" -destination-nsqd-tcp-address 127.0.0.1:1"+soon)...)
	from.finished(t, "orders", "nsq_to_nsq", 20) // half of the attempts fail, however often
	r.end()
	same(t, "messages", to.drained(t, "orders", "c", "20"), lines)
}
