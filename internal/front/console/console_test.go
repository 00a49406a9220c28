package console

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
)

// ask sends a GET with headers given as pairs.
func ask(t *testing.T, h http.Handler, path string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// linked finds the addresses of the files that the page asks for.
func linked(page string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		out = append(out, m[1])
	}
	return out
}

func TestPageAndItsFiles(t *testing.T) {
	for _, base := range []string{"", "/", "/console", "/console/"} {
		h := New(Options{Base: base})
		r := ask(t, h, h.base+"topics/orders.v1/channels/audit%23ephemeral?tab=queued")
		page := body(t, r)
		if r.StatusCode != http.StatusOK || !strings.Contains(page, `content="`+h.base+`"`) || strings.Contains(page, "{{") {
			t.Fatalf("base %q: a deep link is answered %d:\n%s", base, r.StatusCode, page)
		}
		if got := r.Header.Get("Content-Security-Policy"); got != policy {
			t.Errorf("policy is %q", got)
		}
		if got := r.Header.Get("Cache-Control"); got != "no-cache" {
			t.Errorf("page: Cache-Control is %q", got)
		}
		files := linked(page)
		if len(files) != 3 {
			t.Fatalf("the page asks for %q", files)
		}
		for _, f := range files {
			r := ask(t, h, f)
			if r.StatusCode != http.StatusOK || !strings.Contains(r.Header.Get("Cache-Control"), "immutable") || body(t, r) == "" {
				t.Errorf("%s: %d, %q", f, r.StatusCode, r.Header.Get("Cache-Control"))
			}
		}
	}
}

func TestNothingInlineAndNothingFromElsewhere(t *testing.T) {
	page := body(t, ask(t, New(Options{}), "/"))
	for _, bad := range []string{"style=", "onload=", "<style", "https:", "http:"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if strings.Contains(string(read("style.css")), "url(") {
		t.Error("the style sheet loads something")
	}
}

func TestReadOnlyStandsInThePage(t *testing.T) {
	page := body(t, ask(t, New(Options{ReadOnly: true}), "/"))
	if !strings.Contains(page, `name="tidings-read-only" content="true"`) {
		t.Error(page)
	}
}

func TestCachedAndPacked(t *testing.T) {
	h := New(Options{})
	for _, path := range append(linked(body(t, ask(t, h, "/"))), "/") {
		plain := ask(t, h, path)
		packed := ask(t, h, path, "Accept-Encoding", "br, gzip;q=0.8")
		z, err := gzip.NewReader(packed.Body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		unpacked, err := io.ReadAll(z)
		if err != nil || string(unpacked) != body(t, plain) {
			t.Errorf("%s: gzip gives something else: %v", path, err)
		}
		for _, r := range []*http.Response{plain, packed} {
			again := ask(t, h, path, "If-None-Match", `"x", W/`+r.Header.Get("ETag"), "Accept-Encoding", r.Header.Get("Content-Encoding"))
			if again.StatusCode != http.StatusNotModified || body(t, again) != "" {
				t.Errorf("%s: asked again: %d", path, again.StatusCode)
			}
		}
		if plain.Header.Get("ETag") == packed.Header.Get("ETag") {
			t.Errorf("%s: both forms have the same tag", path)
		}
	}
}

func TestRefused(t *testing.T) {
	h := New(Options{})
	if r := ask(t, h, "/assets/app.000000000000.js"); r.StatusCode != http.StatusNotFound {
		t.Errorf("a file of another version: %d", r.StatusCode)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/", nil))
	if w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d, %d bytes", w.Code, w.Body.Len())
	}
}

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "br, GZIP": true, "gzip;q=0": false, "gzip; q=0.0": false, "gzip;q=0.5": true, "deflate": false, "gzip;q=1": true,
	} {
		if acceptsGzip(header) != want {
			t.Errorf("%q: want %v", header, want)
		}
	}
}

// texts reads a table of texts: keys and what stands in braces in each.
func texts(t *testing.T, name string) map[string][]string {
	t.Helper()
	source, err := os.ReadFile("web/src/i18n/" + name + ".ts")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	value := regexp.MustCompile(`\{\w+\}`)
	for _, m := range regexp.MustCompile(`(?m)^  '([\w.]+)': '(.*)',$`).FindAllStringSubmatch(string(source), -1) {
		if _, ok := out[m[1]]; ok {
			t.Errorf("%s: %s stands there twice", name, m[1])
		}
		out[m[1]] = append(value.FindAllString(m[2], -1), m[2])
	}
	return out
}

func TestLanguagesSayTheSame(t *testing.T) {
	en, zh := texts(t, "en"), texts(t, "zh")
	if len(en) < 300 {
		t.Fatalf("only %d texts were read", len(en))
	}
	for key, said := range en {
		other, ok := zh[key]
		if !ok {
			t.Errorf("%s is missing in Chinese", key)
			continue
		}
		for _, v := range other[:len(other)-1] {
			if !strings.Contains(said[len(said)-1], v) {
				t.Errorf("%s: Chinese has %s, English has not", key, v)
			}
		}
		for _, v := range said[:len(said)-1] {
			// a count that only chooses between forms is not needed in Chinese
			if !strings.Contains(other[len(other)-1], v) && v != "{n}" {
				t.Errorf("%s: English has %s, Chinese has not", key, v)
			}
		}
	}
	for key := range zh {
		if _, ok := en[key]; !ok {
			t.Errorf("%s is missing in English", key)
		}
	}
}

// TestTextsAreUsed keeps the tables from growing what no page says.
func TestTextsAreUsed(t *testing.T) {
	var source strings.Builder
	for _, dir := range []string{"core", "pages", "ui", "."} {
		entries, err := os.ReadDir("web/src/" + dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".ts") || strings.HasSuffix(e.Name(), ".tsx") {
				b, err := os.ReadFile("web/src/" + dir + "/" + e.Name())
				if err != nil {
					t.Fatal(err)
				}
				source.Write(b)
			}
		}
	}
	built := regexp.MustCompile(`^(finding|next|filter|live|node|origin|peek|severity)\.`) // keys made of parts
	for key := range texts(t, "en") {
		if !built.MatchString(key) && !strings.Contains(source.String(), "'"+key+"'") {
			t.Errorf("no page says %s", key)
		}
	}
}
