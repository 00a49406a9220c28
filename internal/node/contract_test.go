package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// contract is openapi.yaml, against which every answer is held.
type contract struct {
	doc      map[string]any
	compiler *jsonschema.Compiler

	mu   sync.Mutex
	seen map[string]bool // operations that were tried: METHOD path status
}

func readContract(t *testing.T) *contract {
	t.Helper()
	text, err := os.ReadFile("../front/admin/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var raw any
	if err := yaml.Unmarshal(text, &raw); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{doc: doc.(map[string]any), compiler: jsonschema.NewCompiler(), seen: make(map[string]bool)}
	if err := c.compiler.AddResource("mem:///openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	return c
}

// at finds a place of the document by its keys.
func at(v any, keys ...string) any {
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

// deref follows references.
func (c *contract) deref(v any) map[string]any {
	for {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		ref, ok := m["$ref"].(string)
		if !ok {
			return m
		}
		v = at(c.doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
}

// operation finds the template of a path and its operation.
func (c *contract) operation(method, path string) (template string, op map[string]any) {
	path = strings.TrimPrefix(path, "/api/v1")
	words := strings.Split(path, "/")
	best := -1
	for t, item := range c.doc["paths"].(map[string]any) {
		parts := strings.Split(t, "/")
		if len(parts) != len(words) {
			continue
		}
		literal, fits := 0, true
		for i := range parts {
			if strings.HasPrefix(parts[i], "{") {
				continue
			}
			fits = fits && parts[i] == words[i]
			literal++
		}
		if o, ok := at(item, strings.ToLower(method)).(map[string]any); ok && fits && literal > best {
			best, template, op = literal, t, o
		}
	}
	return template, op
}

// check holds an answer against the contract.
func (c *contract) check(t *testing.T, method, path string, status int, kind string, body []byte) {
	t.Helper()
	path, _, _ = strings.Cut(path, "?")
	template, op := c.operation(method, path)
	if op == nil {
		t.Errorf("%s %s is not in the contract", method, path)
		return
	}
	key := fmt.Sprint(status)
	if status >= 400 {
		key = "default"
	}
	c.mu.Lock()
	c.seen[method+" "+template+" "+key] = true
	c.mu.Unlock()
	response := c.deref(at(op, "responses", key))
	kind, _, _ = strings.Cut(kind, ";")
	media, ok := at(response, "content", kind).(map[string]any)
	if !ok {
		t.Errorf("%s %s answers %d with %s, which is not in the contract: %.300s", method, path, status, kind, body)
		return
	}
	if kind == "application/json" {
		c.checkJSON(t, method+" "+path, media["schema"], body)
	}
}

// checkJSON holds a value against a schema, which is a reference.
func (c *contract) checkJSON(t *testing.T, what string, schema any, body []byte) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		t.Errorf("%s: %v in %.300s", what, err, body)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	compiled, err := c.compiler.Compile("mem:///openapi.json" + at(schema, "$ref").(string))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(v); err != nil {
		t.Errorf("%s: %v\n%.1500s", what, err, body)
	}
	for _, extra := range c.undocumented(schema, v, "") {
		t.Errorf("%s: %s is not in the contract", what, extra)
	}
}

// undocumented lists members of a value that its schema does not name.
func (c *contract) undocumented(schema, v any, where string) (list []string) {
	s := c.deref(schema)
	switch x := v.(type) {
	case []any:
		for i := range x {
			list = append(list, c.undocumented(s["items"], x[i], where+"[]")...)
		}
	case map[string]any:
		known := make(map[string]any)
		open := c.properties(s, known)
		for k, m := range x {
			switch {
			case known[k] != nil:
				list = append(list, c.undocumented(known[k], m, where+"."+k)...)
			case open != nil:
				list = append(list, c.undocumented(open, m, where+".*")...)
			case len(known) > 0:
				list = append(list, where+"."+k)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// properties gathers what a schema says of an object's members, and of those it
// does not name.
func (c *contract) properties(s, into map[string]any) (open any) {
	for _, part := range anyList(s["allOf"]) {
		if o := c.properties(c.deref(part), into); o != nil {
			open = o
		}
	}
	if p, ok := s["properties"].(map[string]any); ok {
		maps.Copy(into, p)
	}
	if o, ok := s["additionalProperties"].(map[string]any); ok {
		open = o
	}
	return open
}

func anyList(v any) []any {
	l, _ := v.([]any)
	return l
}

// untried lists operations whose success nobody has tried.
func (c *contract) untried() (list []string) {
	for template, item := range c.doc["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			if method != "parameters" && !c.seen[strings.ToUpper(method)+" "+template+" 200"] {
				list = append(list, strings.ToUpper(method)+" "+template)
			}
		}
	}
	slices.Sort(list)
	return list
}

// api is the admin API of a running node, every answer of which is checked.
type api struct {
	t    *testing.T
	base string // http://host:port
	c    *contract
}

// do sends a request and returns the answer, checked.
func (a *api) do(method, path, body string) (int, []byte) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.base+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("X-Tidings", "1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	a.c.check(a.t, method, path, resp.StatusCode, resp.Header.Get("Content-Type"), answer)
	return resp.StatusCode, answer
}

// ok is do for a request that must succeed; the answer goes into v, which may be
// nil.
func (a *api) ok(method, path, body string, v any) {
	a.t.Helper()
	status, answer := a.do(method, path, body)
	if status != http.StatusOK {
		a.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	if v != nil {
		reflect.ValueOf(v).Elem().SetZero()
		if err := json.Unmarshal(answer, v); err != nil {
			a.t.Fatal(err)
		}
	}
}

// refused is do for a request that must fail with a code.
func (a *api) refused(method, path, body string, want int, code string) {
	a.t.Helper()
	status, answer := a.do(method, path, body)
	var e struct{ Code string }
	if json.Unmarshal(answer, &e) != nil || status != want || e.Code != code {
		a.t.Errorf("%s %s: got %d %s, want %d %s", method, path, status, answer, want, code)
	}
}
