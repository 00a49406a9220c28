package lookup

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// recording is what a real nsqd and a real nsqlookupd said to each other, in
// the order that it was said, by stage. Each line of its file is a kind and a
// quoted text:
//
//	stage  what was done to the nsqd meanwhile; see stages
//	>      bytes of the nsqd on its connection, one command
//	<      bytes of the nsqlookupd on it, one answer
//	ask    an HTTP request of the nsqd to the nsqlookupd, and
//	told   the answer
//	post   a tool's POST to the nsqlookupd
//	look   what a consumer asks the nsqlookupd at the end of the stage, and
//	found  the answer, or part of it
type recording []entry

type entry struct{ kind, text string }

const recordingFile = "testdata/fleet.txt"

func (r recording) String() string {
	var b strings.Builder
	b.WriteString("# Made by TestRecord; what it means stands in recording_test.go.\n")
	for _, e := range r {
		fmt.Fprintf(&b, "%-5s %q\n", e.kind, e.text)
	}
	return b.String()
}

func readRecording(t *testing.T, file string) recording {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r recording
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		kind, quoted, _ := strings.Cut(strings.TrimSpace(line), " ")
		text, err := strconv.Unquote(strings.TrimSpace(quoted))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		r = append(r, entry{kind, text})
	}
	return r
}

// stage is what happens to an nsqd in one step of the recording, and a node of
// ours in its replay.
type stage struct {
	name string
	do   func(*scene)
	// post is a tool's request to the nsqlookupd, before the stage.
	post []string
	look []string // asked at its end
}

// scene is an nsqd, real or ours, that is acted upon.
type scene struct {
	t         *testing.T
	tcp, http string
	tail      net.Conn
	stop      func()
}

func (s *scene) post(path string) {
	s.t.Helper()
	if code, got := ask(s.t, "POST", "http://"+s.http+path, "x"); code != 200 {
		s.t.Fatalf("%s: %d %s", path, code, got)
	}
}

const lookOrders = "/lookup?topic=orders"

// stages is the life of an nsqd among a fleet.
var stages = []stage{
	{name: "identify", do: func(*scene) {}, look: []string{"/nodes"}},
	{
		name: "a topic whose channels are known", post: []string{"/channel/create?topic=orders&channel=audit", "/channel/create?topic=orders&channel=tail%23ephemeral"},
		do: func(s *scene) { s.post("/topic/create?topic=orders") }, look: []string{lookOrders, "/topics", "/nodes"},
	},
	{name: "a channel", do: func(s *scene) { s.post("/channel/create?topic=orders&channel=extra") }, look: []string{lookOrders}},
	{name: "an ephemeral channel", do: func(s *scene) { s.tail = consumer(s.t, s.tcp, "orders", "live#ephemeral") }, look: []string{lookOrders}},
	{name: "the ephemeral channel ends", do: func(s *scene) { s.tail.Close() }, look: []string{lookOrders}},
	{name: "a publish to a new topic", do: func(s *scene) { s.post("/pub?topic=logs") }, look: []string{"/lookup?topic=logs"}},
	{name: "a tombstone", post: []string{"/topic/tombstone?topic=orders&node=nsqd.example:14151"}, do: func(*scene) {}, look: []string{lookOrders, "/nodes"}},
	{name: "a channel is deleted", do: func(s *scene) { s.post("/channel/delete?topic=orders&channel=extra") }, look: []string{"/channels?topic=orders"}},
	{name: "the topic is deleted", do: func(s *scene) { s.post("/topic/delete?topic=orders") }, look: []string{lookOrders, "/lookup?topic=logs", "/nodes"}},
	{name: "a ping", do: func(*scene) {}},
	{name: "the end", do: func(s *scene) { s.stop() }, look: []string{"/lookup?topic=logs", "/nodes"}},
}

// by cuts the recording at its stages.
func (r recording) by(name string) (part recording) {
	in := false
	for _, e := range r {
		if e.kind == "stage" {
			in = e.text == name
		} else if in {
			part = append(part, e)
		}
	}
	return part
}

func (r recording) of(kind string) (texts []string) {
	for _, e := range r {
		if e.kind == kind {
			texts = append(texts, e.text)
		}
	}
	return texts
}

// command reads one command of an nsqd as it came; the first is the magic.
func command(in *bufio.Reader, first bool) (string, error) {
	if first {
		magic := make([]byte, 4)
		_, err := io.ReadFull(in, magic)
		return string(magic), err
	}
	line, err := in.ReadString('\n')
	if err != nil || line != "IDENTIFY\n" {
		return line, err
	}
	body, err := answer(in)
	return line + body, err
}

// answer reads what stands behind its length, and returns both.
func answer(in io.Reader) (string, error) {
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return "", err
	}
	body := make([]byte, min(binary.BigEndian.Uint32(size[:]), 1<<20))
	_, err := io.ReadFull(in, body)
	return string(size[:]) + string(body), err
}

// differ are what two runs never have alike.
var differ = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`"remote_address":"[^"]*"`), `"remote_address":"R"`},
	{regexp.MustCompile(`"hostname":"[^"]*"`), `"hostname":"H"`},
}

func alike(text string) string {
	for _, d := range differ {
		text = d.re.ReplaceAllString(text, d.to)
	}
	return channelList.ReplaceAllStringFunc(topicList.ReplaceAllStringFunc(text, func(s string) string {
		return strings.Replace(sorted(strings.Replace(s, `"topics"`, `"channels"`, 1)), `"channels"`, `"topics"`, 1)
	}), sorted)
}

var topicList = regexp.MustCompile(`"topics":\[[^\]]*\]`)

// keys are the fields of a JSON object with the types of their values.
func keys(t *testing.T, text string) map[string]string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	out := make(map[string]string)
	for k, v := range fields {
		out[k] = fmt.Sprintf("%T", v)
	}
	return out
}

// names are what an nsqd is registered for: a topic, or "topic channel".
type names map[string]bool

// apply does what a command asks for.
func (n names) apply(t *testing.T, command string) {
	t.Helper()
	verb, what, _ := strings.Cut(strings.TrimSuffix(command, "\n"), " ")
	topic, channel, _ := strings.Cut(what, " ")
	switch {
	case verb == "PING" && what == "":
	case verb == "REGISTER":
		n[topic] = true
		if channel != "" {
			n[what] = true
		}
	case verb == "UNREGISTER" && channel != "":
		delete(n, what)
	case verb == "UNREGISTER":
		for name := range n {
			if name == topic || strings.HasPrefix(name, topic+" ") {
				delete(n, name)
			}
		}
	default:
		t.Errorf("no nsqd would say %q", command)
	}
}
