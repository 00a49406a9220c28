package admin

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// Importer is what an import from another server changes. *broker.Broker is one.
type Importer interface {
	BeginIngest(ctx context.Context, s *broker.IngestStart) error
	PauseTopic(ctx context.Context, topic string, paused bool) error
	Ingest(ctx context.Context, in *broker.Ingest) error
}

// The paths of an import, all POST. Whatever is asked may be asked again.
const (
	PathImportBegin    = "/api/import/begin"    // ImportStart
	PathImportPause    = "/api/import/pause"    // ImportTopic: pause it
	PathImportMessages = "/api/import/messages" // ImportMessages
)

// ImportStart is the body of POST /api/import/begin: broker.IngestStart.
type ImportStart struct {
	Topic    string      `json:"topic"`
	Session  string      `json:"session"` // 32 hexadecimal digits
	Channels []ImportNew `json:"channels,omitempty"`
}

// ImportNew is broker.IngestNew.
type ImportNew struct {
	Name   string `json:"name"`
	Paused bool   `json:"paused,omitempty"`
}

// ImportTopic is the body of a request about a topic.
type ImportTopic struct {
	Topic string `json:"topic"`
}

// ImportMessages is the body of POST /api/import/messages: broker.Ingest.
type ImportMessages struct {
	Topic    string          `json:"topic"`
	Session  string          `json:"session"` // 32 hexadecimal digits
	From     uint64          `json:"from"`
	To       uint64          `json:"to"`
	Handed   bool            `json:"handed,omitempty"`
	Messages [][]byte        `json:"messages,omitempty"` // base64
	Channels []ImportChannel `json:"channels,omitempty"`
}

// ImportChannel is broker.IngestChannel.
type ImportChannel struct {
	Name     string     `json:"name"`
	Finished [][2]int64 `json:"finished,omitempty"` // from, to
	Attempts [][2]int64 `json:"attempts,omitempty"` // place, number
}

// maxImport bounds the body of POST /api/import/messages, in bytes: a message of
// 16 MiB in base64, and what comes with it.
const maxImport = 32 << 20

// NewImportMessages is the body for a part of an import.
func NewImportMessages(in *broker.Ingest) ImportMessages {
	m := ImportMessages{
		Topic: in.Topic, Session: hex.EncodeToString(in.Session[:]), From: in.From, To: in.To, Handed: in.Handed,
		Messages: make([][]byte, len(in.Messages)),
	}
	for i := range in.Messages {
		m.Messages[i] = in.Messages[i].Body
	}
	for _, c := range in.Channels {
		x := ImportChannel{Name: c.Name}
		for _, r := range c.Finished {
			x.Finished = append(x.Finished, [2]int64{r.From, r.To})
		}
		for _, a := range c.Attempts {
			x.Attempts = append(x.Attempts, [2]int64{a.Offset, int64(a.N)})
		}
		m.Channels = append(m.Channels, x)
	}
	return m
}

// NewImportStart is the body that begins an import.
func NewImportStart(s *broker.IngestStart) ImportStart {
	b := ImportStart{Topic: s.Topic, Session: hex.EncodeToString(s.Session[:])}
	for _, c := range s.Channels {
		b.Channels = append(b.Channels, ImportNew(c))
	}
	return b
}

// start is what the body tells.
func (b *ImportStart) start() (s *broker.IngestStart, err error) {
	s = &broker.IngestStart{Topic: b.Topic}
	if s.Session, err = session(b.Session); err != nil {
		return nil, err
	}
	for _, c := range b.Channels {
		s.Channels = append(s.Channels, broker.IngestNew(c))
	}
	return s, nil
}

func session(text string) (s broker.Session, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(s) {
		return s, fault.New(fault.InvalidRequest, "session %q: want 32 hexadecimal digits", text)
	}
	copy(s[:], b)
	return s, nil
}

// ingest is the part of an import that the body tells.
func (m *ImportMessages) ingest() (in *broker.Ingest, err error) {
	in = &broker.Ingest{Topic: m.Topic, From: m.From, To: m.To, Handed: m.Handed, Messages: make([]broker.Message, len(m.Messages))}
	if in.Session, err = session(m.Session); err != nil {
		return nil, err
	}
	for i, body := range m.Messages {
		in.Messages[i].Body = body
	}
	for _, x := range m.Channels {
		c := broker.IngestChannel{Name: x.Name}
		for _, r := range x.Finished {
			c.Finished = append(c.Finished, offsets.Range{From: r[0], To: r[1]})
		}
		for _, a := range x.Attempts {
			if a[1] < 1 || a[1] > 1<<16-1 {
				return nil, fault.New(fault.InvalidRequest, "channel %s: %d attempts", x.Name, a[1])
			}
			c.Attempts = append(c.Attempts, partition.Attempt{Offset: a[0], N: uint16(a[1])})
		}
		in.Channels = append(in.Channels, c)
	}
	return in, nil
}

// imports adds the paths of an import.
func (f *Front) imports(mux *http.ServeMux) {
	if f.o.Imports == nil {
		return
	}
	mux.HandleFunc("POST "+PathImportBegin, func(w http.ResponseWriter, r *http.Request) {
		var b ImportStart
		f.importing(w, r, maxImport, &b, func(ctx context.Context, i Importer) error {
			s, err := b.start()
			if err != nil {
				return err
			}
			return i.BeginIngest(ctx, s)
		})
	})
	mux.HandleFunc("POST "+PathImportPause, func(w http.ResponseWriter, r *http.Request) {
		var t ImportTopic
		f.importing(w, r, maxRequest, &t, func(ctx context.Context, i Importer) error { return i.PauseTopic(ctx, t.Topic, true) })
	})
	mux.HandleFunc("POST "+PathImportMessages, func(w http.ResponseWriter, r *http.Request) {
		var m ImportMessages
		f.importing(w, r, maxImport, &m, func(ctx context.Context, i Importer) error {
			in, err := m.ingest()
			if err != nil {
				return err
			}
			return i.Ingest(ctx, in)
		})
	})
}

// importing reads a request of an import, does it and answers.
func (f *Front) importing(w http.ResponseWriter, r *http.Request, limit int64, v any, do func(context.Context, Importer) error) {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		refuse(w, fault.New(fault.InvalidRequest, "read the body: %v", err))
		return
	}
	i := f.o.Imports()
	if i == nil {
		refuse(w, fault.New(fault.Unreachable, "the node is starting"))
		return
	}
	if err := do(r.Context(), i); err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, struct{}{})
}
