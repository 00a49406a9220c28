// Package console serves the browser's view of a node: one page of HTML, one
// script, one style sheet, embedded in the binary. It holds no state and asks
// nothing of the node; the page in the browser talks to the admin API of the
// address that it came from.
//
// The sources stand in web/ (TypeScript), the bundle made of them in dist/;
// web/build makes one of the other. Both are committed, and CI shows that they
// agree.
package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
)

//go:embed dist
var bundle embed.FS

// policy lets the page load what this server gives and nothing else; no inline
// script or style runs, and no other page can frame it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Options of a Console.
type Options struct {
	// Base is the path under which the handler is mounted, "/" when empty. The
	// handler gets requests with their whole path.
	Base string
	// ReadOnly hides what changes anything. It is a courtesy to the viewer: the
	// admin API decides what is allowed.
	ReadOnly bool
}

// Console answers GET and HEAD with the page and its files. Every path that is
// no file is the page itself, which reads the path to know what to show.
type Console struct {
	base  string
	page  *file
	files map[string]*file // by path below base
}

// New makes the handler. It panics when the embedded bundle is not whole, which
// the package's tests rule out.
func New(o Options) *Console {
	c := &Console{base: "/" + strings.Trim(o.Base, "/"), files: map[string]*file{}}
	if c.base != "/" {
		c.base += "/"
	}
	links := []string{
		"{{base}}", html.EscapeString(c.base),
		"{{read-only}}", fmt.Sprint(o.ReadOnly),
	}
	for _, name := range []string{"app.js", "style.css", "icon.svg"} {
		f := newFile(name, read(name))
		ext := path.Ext(name)
		hashed := "assets/" + strings.TrimSuffix(name, ext) + "." + f.sum[:12] + ext
		c.files[hashed] = f
		links = append(links, "{{"+name+"}}", html.EscapeString(c.base+hashed))
	}
	c.page = newFile("index.html", []byte(strings.NewReplacer(links...).Replace(string(read("index.html")))))
	return c
}

func read(name string) []byte {
	data, err := fs.ReadFile(bundle, "dist/"+name)
	if err != nil {
		panic(fmt.Sprintf("console: the embedded bundle is not whole: %v", err))
	}
	return data
}

// ServeHTTP answers one request.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the console answers GET only", http.StatusMethodNotAllowed)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	below := strings.TrimPrefix(r.URL.Path, c.base)
	if f, ok := c.files[below]; ok {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		f.serve(w, r)
		return
	}
	if strings.HasPrefix(below, "assets/") { // of another version
		http.NotFound(w, r)
		return
	}
	h.Set("Cache-Control", "no-cache")
	c.page.serve(w, r)
}

// file is one file of the bundle, as it goes out.
type file struct {
	kind  string
	plain []byte
	sum   string // SHA-256 of plain, in hex
	// packed is made on first use: most nodes are never looked at.
	packed func() []byte
}

func newFile(name string, data []byte) *file {
	sum := sha256.Sum256(data)
	kind := mime.TypeByExtension(path.Ext(name))
	switch path.Ext(name) { // the machine's own table may say something else
	case ".js":
		kind = "text/javascript; charset=utf-8"
	case ".css":
		kind = "text/css; charset=utf-8"
	case ".html":
		kind = "text/html; charset=utf-8"
	case ".svg":
		kind = "image/svg+xml"
	}
	return &file{
		kind: kind, plain: data, sum: hex.EncodeToString(sum[:]),
		packed: sync.OnceValue(func() []byte { return pack(data) }),
	}
}

// pack gives data in gzip's format.
func pack(data []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is one of its own
	_, _ = w.Write(data)                                  // a buffer takes everything
	_ = w.Close()
	return b.Bytes()
}

func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Vary", "Accept-Encoding")
	body, tag := f.plain, `"`+f.sum[:24]+`"`
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		body, tag = f.packed(), `"`+f.sum[:24]+`-gzip"`
	}
	h.Set("ETag", tag)
	if matches(r.Header.Get("If-None-Match"), tag) {
		h.Del("Content-Type")
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(body) // a client that is gone needs no answer
	}
}

// acceptsGzip reads an Accept-Encoding header (RFC 9110, section 12.5.3).
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, weight, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			weight = strings.TrimPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
			return strings.Trim(weight, "0.") != "" || weight == ""
		}
	}
	return false
}

// matches reads an If-None-Match header (RFC 9110, section 13.1.2).
func matches(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if part == tag || part == "*" {
			return true
		}
	}
	return false
}
