package fault

import "sync"

// named finds a code by its name: the numbers belong to one program, so names
// travel between nodes.
var named = sync.OnceValue(func() map[string]Code {
	names := make(map[string]Code, codes)
	for c := range codes {
		names[c.String()] = c
	}
	return names
})

// Named is the code whose String is name; Internal when there is none.
func Named(name string) Code {
	if c, ok := named()[name]; ok {
		return c
	}
	return Internal
}
