package nsqadmin

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// talk is one row's conversation with an nsqadmin.
type talk struct {
	t *testing.T
	*stage
}

// step is one line of a row.
type step func(*talk)

// row is one rule: its name and what shows it.
type row struct {
	name  string
	steps []step
}

func rule(name string, steps ...step) row { return row{name, steps} }

// runRows runs rows one after the other: they share the stage's fakes.
func runRows(t *testing.T, s *stage, rows []row) {
	t.Helper()
	seen := make(map[string]bool)
	for _, r := range rows {
		if seen[r.name] {
			t.Errorf("two rows are named %q", r.name)
		}
		seen[r.name] = true
		t.Run(r.name, func(t *testing.T) {
			for _, f := range s.fakes() {
				f.take()
			}
			k := &talk{t, s}
			for _, step := range r.steps {
				step(k)
			}
		})
	}
}

// differs marks a rule in which we differ on purpose: what nsqadmin does, and
// what we do.
func differs(why string, real, ours []step) step {
	return func(k *talk) {
		k.t.Helper()
		k.t.Logf("deliberate difference: %s", why)
		steps := ours
		if realProgram() != "" {
			steps = real
		}
		for _, s := range steps {
			s(k)
		}
	}
}

// do makes a request: "METHOD /path", headers as "Name: value".
func (k *talk) do(line, body string, headers ...string) (*http.Response, string) {
	k.t.Helper()
	method, path, _ := strings.Cut(k.expand(line), " ")
	req, err := http.NewRequest(method, "http://"+k.at+path, strings.NewReader(body))
	if err != nil {
		k.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if req.Header.Add(name, value); name == "Host" {
			req.Host = value
		}
	}
	res, err := client.Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		k.t.Fatal(err)
	}
	return res, string(got)
}

// request wants a status and an exact body.
func request(line, body string, status int, want string, headers ...string) step {
	return func(k *talk) {
		k.t.Helper()
		res, got := k.do(line, body, headers...)
		if res.StatusCode != status || k.hide(got) != want {
			k.t.Fatalf("%s:\nwant %d %s\n got %d %s", line, status, want, res.StatusCode, k.hide(got))
		}
		k.checkHeaders(line, res, got)
	}
}

func (k *talk) checkHeaders(line string, res *http.Response, body string) {
	k.t.Helper()
	if !json.Valid([]byte(body)) {
		return
	}
	if got := res.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		k.t.Errorf("%s: Content-Type is %q", line, got)
	}
	if got := res.Header.Get("X-NSQ-Content-Type"); got != "nsq; version=1.0" {
		k.t.Errorf("%s: X-NSQ-Content-Type is %q", line, got)
	}
}

// answers wants a status and, somewhere in the body, texts.
func answers(line, body string, status int, parts ...string) step {
	return func(k *talk) {
		k.t.Helper()
		res, got := k.do(line, body)
		for _, part := range parts {
			if res.StatusCode != status || !strings.Contains(k.hide(got), part) {
				k.t.Fatalf("%s: want %d …%s…\n got %d %s", line, status, part, res.StatusCode, k.hide(got))
			}
		}
	}
}

func get(path string, status int, want string) step { return request("GET "+path, "", status, want) }

func message(text string) string { return fmt.Sprintf(`{"message":%q}`, text) }

// fine is the answer to an action that nobody complained about.
var fine = message("")

// told wants an upstream to have been told exactly this since the row began.
func told(name string, want ...string) step {
	return func(k *talk) {
		k.t.Helper()
		for _, f := range k.fakes() {
			if f.name != name {
				continue
			}
			got := f.take()
			if d := cmp.Diff(want, got); len(want)+len(got) > 0 && d != "" {
				k.t.Fatalf("$%s was told (- wanted, + got):\n%s", name, k.hide(d))
			}
			return
		}
		k.t.Fatalf("there is no $%s", name)
	}
}

// nothingTold wants that no upstream was told anything.
func nothingTold(k *talk) {
	k.t.Helper()
	for _, f := range k.fakes() {
		if got := f.take(); len(got) > 0 {
			k.t.Fatalf("$%s was told %q", f.name, got)
		}
	}
}

// askedAtMost wants an upstream to have been asked no more often.
func askedAtMost(name string, n int) step {
	return func(k *talk) {
		k.t.Helper()
		for _, f := range k.fakes() {
			f.mu.Lock()
			if f.name == name && len(f.asked) > n {
				k.t.Errorf("$%s was asked %d times: %q", name, len(f.asked), f.asked)
			}
			f.mu.Unlock()
		}
	}
}

// asked wants an upstream to have been asked exactly this since the row began.
func asked(name string, want ...string) step {
	return func(k *talk) {
		k.t.Helper()
		for _, f := range k.fakes() {
			f.mu.Lock()
			if d := cmp.Diff(want, f.asked); f.name == name && d != "" {
				k.t.Errorf("$%s was asked (- wanted, + got):\n%s", name, d)
			}
			f.mu.Unlock()
		}
	}
}

// passing is what changes with time.
var passing = regexp.MustCompile(`"connected": -?[0-9]+`)

// golden wants the JSON answer to be what the file of the row's name holds. With
// -update it writes the file.
func golden(path, name string) step { return goldenAs(path, name, func(s string) string { return s }) }

// goldenSorted is golden for an answer whose keys are addresses, which make the
// order.
func goldenSorted(path, name string) step {
	return goldenAs(path, name, func(text string) string {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return err.Error()
		}
		sorted, err := json.Marshal(v)
		if err != nil {
			return err.Error()
		}
		return string(sorted)
	})
}

func goldenAs(path, name string, shape func(string) string) step {
	return func(k *talk) {
		k.t.Helper()
		res, got := k.do("GET "+path, "")
		if res.StatusCode != http.StatusOK {
			k.t.Fatalf("%s: %d %s", path, res.StatusCode, got)
		}
		k.checkHeaders(path, res, got)
		got = passing.ReplaceAllString(indented(k.t, shape(k.hide(got))), `"connected": "$$NANOSECONDS"`)
		file := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				k.t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			k.t.Fatal(err)
		}
		if d := cmp.Diff(strings.ReplaceAll(string(want), "\r\n", "\n"), got); d != "" {
			k.t.Fatalf("%s (- %s, + got):\n%s", path, file, d)
		}
	}
}

// eventually repeats a step's check until it is so.
func eventually(k *talk, what string, check func() bool) {
	k.t.Helper()
	for end := time.Now().Add(patience); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			k.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}
