package nsqadmin

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
)

// httpError is an answer with {"message": text}.
type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return e.text }

func bad(text string) error { return &httpError{http.StatusBadRequest, text} }

// compressFrom is the size of an answer in bytes from which it is compressed.
const compressFrom = 1 << 10

// succeed answers 200: nil is empty, a string raw, everything else JSON.
func (f *Front) succeed(w http.ResponseWriter, r *http.Request, data any) {
	var text []byte
	switch d := data.(type) {
	case nil:
	case string:
		text = []byte(d)
	default:
		var err error
		if text, err = json.Marshal(d); err != nil {
			f.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	w.Header().Add("Vary", "Accept-Encoding")
	if len(text) >= compressFrom && acceptsGzip(r) {
		var small bytes.Buffer
		z := gzip.NewWriter(&small)
		_, _ = z.Write(text) // to memory
		_ = z.Close()
		text = small.Bytes()
		if w.Header().Get("Content-Type") == "" {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		}
		w.Header().Set("Content-Encoding", "gzip")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // a client that is gone needs no answer
}

func acceptsGzip(r *http.Request) bool {
	for coding := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(coding, ";")
		if strings.TrimSpace(name) == "gzip" {
			return strings.ReplaceAll(q, " ", "") != "q=0"
		}
	}
	return false
}

// fail answers an error.
func (f *Front) fail(w http.ResponseWriter, r *http.Request, err error) {
	var h *httpError
	if !errors.As(err, &h) {
		f.log.Error("answer request", "method", r.Method, "path", r.URL.Path, "error", err)
		h = &httpError{http.StatusInternalServerError, "INTERNAL_ERROR"}
	}
	if h.status == http.StatusBadGateway {
		f.log.Warn("answer request", "method", r.Method, "path", r.URL.Path, "error", h.text)
	}
	text, _ := json.Marshal(done{h.text}) // text can't fail
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(h.status)
	_, _ = w.Write(text)
}
