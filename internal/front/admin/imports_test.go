package admin

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// asked notes what an import asks for.
type asked struct {
	calls []string
	in    *broker.Ingest
	start *broker.IngestStart
	err   error
}

func (a *asked) call(words ...string) error {
	a.calls = append(a.calls, strings.Join(words, " "))
	return a.err
}

func (a *asked) BeginIngest(_ context.Context, s *broker.IngestStart) error {
	a.start = s
	return a.call("begin", s.Topic)
}

func (a *asked) PauseTopic(_ context.Context, t string, _ bool) error { return a.call("pause", t) }

func (a *asked) Ingest(_ context.Context, in *broker.Ingest) error {
	a.in = in
	return a.call("ingest", in.Topic)
}

func post(imports func() Importer, path, body string) (int, string) {
	f := New(Options{Metrics: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler), Imports: imports})
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	f.server.Handler.ServeHTTP(w, r)
	var refusal struct{ Code string }
	_ = json.Unmarshal(w.Body.Bytes(), &refusal) // empty when it is none
	return w.Code, refusal.Code
}

func TestImportMessagesComeBack(t *testing.T) {
	want := &broker.Ingest{
		Topic: "orders", Session: broker.Session{1, 15: 9}, From: 3, To: 6, Handed: true,
		Messages: []broker.Message{{Body: []byte("x")}, {Body: []byte{0, 255}}},
		Channels: []broker.IngestChannel{
			{Name: "a"},
			{Name: "b", Finished: []offsets.Range{{From: 0, To: 1}}, Attempts: []partition.Attempt{{Offset: 1, N: 65535}}},
		},
	}
	body, err := json.Marshal(NewImportMessages(want))
	if err != nil {
		t.Fatal(err)
	}
	a := &asked{}
	if status, code := post(func() Importer { return a }, PathImportMessages, string(body)); status != http.StatusOK {
		t.Fatal(status, code)
	}
	if d := cmp.Diff(want, a.in); d != "" {
		t.Error(d)
	}
	start := &broker.IngestStart{Topic: "orders", Session: want.Session, Channels: []broker.IngestNew{{Name: "a"}, {Name: "b", Paused: true}}}
	if body, err = json.Marshal(NewImportStart(start)); err != nil {
		t.Fatal(err)
	}
	if status, code := post(func() Importer { return a }, PathImportBegin, string(body)); status != http.StatusOK {
		t.Fatal(status, code)
	}
	if d := cmp.Diff(start, a.start); d != "" {
		t.Error(d)
	}
}

func TestImportRequests(t *testing.T) {
	const session = `"session": "00112233445566778899aabbccddeeff"`
	for _, x := range []struct {
		path, body string
		err        error
		status     int
		code, call string
	}{
		{PathImportBegin, `{"topic": "t", ` + session + `}`, nil, 200, "", "begin t"},
		{PathImportBegin, `{"topic": "t", "session": "x"}`, nil, 400, "INVALID_REQUEST", ""},
		{PathImportPause, `{"topic": "t"}`, nil, 200, "", "pause t"},
		{PathImportPause, `{"topic": "t"}`, fault.TopicNotFound, 404, "TOPIC_NOT_FOUND", "pause t"},
		{PathImportPause, `{"topics": "t"}`, nil, 400, "INVALID_REQUEST", ""},
		{PathImportMessages, `{"topic": "t", ` + session + `, "from": 1, "to": 1}`, fault.OutOfOrder, 503, "OUT_OF_ORDER", "ingest t"},
		{PathImportMessages, `{"topic": "t", "session": "0011"}`, nil, 400, "INVALID_REQUEST", ""},
		{PathImportMessages, `{"topic": "t", ` + session + `, "channels": [{"name": "c", "attempts": [[0, 65536]]}]}`, nil, 400, "INVALID_REQUEST", ""},
		{PathImportMessages, `{"topic": "t", ` + session + `, "messages": ["%"]}`, nil, 400, "INVALID_REQUEST", ""},
	} {
		a := &asked{err: x.err}
		status, code := post(func() Importer { return a }, x.path, x.body)
		if call := strings.Join(a.calls, "; "); status != x.status || code != x.code || call != x.call {
			t.Errorf("%s %s: %d %s, asks for %q; want %d %s, %q", x.path, x.body, status, code, call, x.status, x.code, x.call)
		}
	}
	if status, code := post(func() Importer { return nil }, PathImportPause, `{"topic": "t"}`); status != 503 || code != "UNREACHABLE" {
		t.Errorf("a node that starts answers %d %s", status, code)
	}
}
