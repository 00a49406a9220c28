package admin

import (
	"bytes"
	"encoding/json"
)

// generic is a value as JSON has it, without its members that are null: a merge
// patch can't tell those from members that are taken out.
func generic(v any) (any, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var out any
	if err := d.Decode(&out); err != nil {
		return nil, err
	}
	return withoutNulls(out), nil
}

// withoutNulls takes null members out of objects, those in lists too.
func withoutNulls(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k, m := range x {
			if m == nil {
				delete(x, k)
			} else {
				x[k] = withoutNulls(m)
			}
		}
	case []any:
		for i := range x {
			x[i] = withoutNulls(x[i])
		}
	}
	return v
}

// mergePatch is what makes after of before (RFC 7396), and whether that is
// anything.
func mergePatch(before, after map[string]any) (map[string]any, bool) {
	patch := make(map[string]any)
	for k, now := range after {
		was, had := before[k]
		if !had {
			patch[k] = now
			continue
		}
		wasObject, ok1 := was.(map[string]any)
		nowObject, ok2 := now.(map[string]any)
		if ok1 && ok2 {
			if inner, some := mergePatch(wasObject, nowObject); some {
				patch[k] = inner
			}
		} else if !equal(was, now) {
			patch[k] = now
		}
	}
	for k := range before {
		if _, has := after[k]; !has {
			patch[k] = nil
		}
	}
	return patch, len(patch) > 0
}

// equal compares two values of JSON.
func equal(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, v := range x {
			if w, has := y[k]; !has || !equal(v, w) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !equal(x[i], y[i]) {
				return false
			}
		}
		return true
	}
	return a == b
}
