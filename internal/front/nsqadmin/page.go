package nsqadmin

import (
	"html/template"
	"net/http"
	"path"
)

// pageTemplate is one page for all paths of nsqadmin's, until there is more to
// see than the API.
var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>nsqadmin API – tidings</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem; }
code { font-family: ui-monospace, monospace; }
li { margin: .25rem 0; }
</style>
</head>
<body>
<h1>nsqadmin's API</h1>
<p>This is tidings{{with .Version}} {{.}}{{end}}. It answers nsqadmin's JSON API here; it has no pages of its own yet.</p>
<ul>
{{range .Links}}<li><a href="{{.Path}}"><code>{{.Path}}</code></a> – {{.What}}</li>
{{end}}</ul>
<p><code>{{.Base}}/api/topics/TOPIC</code>, <code>{{.Base}}/api/topics/TOPIC/CHANNEL</code> and
<code>{{.Base}}/api/nodes/HOST:PORT</code> say more of one of them.</p>
</body>
</html>
`))

type link struct{ Path, What string }

// page answers with pageTemplate.
func (f *Front) page() http.Handler {
	at := func(p string) string { return path.Join(f.o.BasePath, p) }
	base := f.o.BasePath
	if base == "/" {
		base = ""
	}
	data := struct {
		Version, Base string
		Links         []link
	}{f.o.Version, base, []link{
		{at("/api/topics"), "all topics"},
		{at("/api/topics") + "?inactive=true", "topics that no node has, with their channels"},
		{at("/api/nodes"), "all nodes"},
		{at("/api/counter"), "messages of every channel of every node"},
		{at("/ping"), "OK while this answers"},
	}}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		_ = pageTemplate.Execute(w, data) // a client that is gone needs no page
	})
}
