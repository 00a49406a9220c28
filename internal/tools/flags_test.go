package tools_test

import (
	"bytes"
	"errors"
	"flag"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/tools"
)

// nsqFlags are the flags of NSQ 1.3's own utilities, with their defaults where
// scripts build on them.
var nsqFlags = map[string]map[string]string{
	"nsq_to_file": {
		"version": "false", "log-level": "info", "log-prefix": "[nsq_to_file] ", "channel": "nsq_to_file", "max-in-flight": "200",
		"output-dir": "/tmp", "work-dir": "", "datetime-format": "%Y-%m-%d_%H", "filename-format": "<TOPIC>.<HOST><REV>.<DATETIME>.log",
		"host-identifier": "", "gzip-level": "6", "gzip": "false", "skip-empty-files": "false", "topic-refresh": "1m0s", "topic-pattern": "",
		"rotate-size": "0", "rotate-interval": "0s", "sync-interval": "30s", "http-client-connect-timeout": "2s", "http-client-request-timeout": "5s",
		"nsqd-tcp-address": "", "lookupd-http-address": "", "topic": "", "consumer-opt": "",
	},
	"nsq_to_http": {
		"version": "false", "topic": "", "channel": "nsq_to_http", "max-in-flight": "200", "n": "100", "mode": "hostpool", "sample": "1",
		"http-client-connect-timeout": "2s", "http-client-request-timeout": "20s", "status-every": "250", "content-type": "application/octet-stream",
		"post": "", "header": "", "get": "", "nsqd-tcp-address": "", "lookupd-http-address": "", "consumer-opt": "",
	},
	"nsq_to_nsq": {
		"version": "false", "channel": "nsq_to_nsq", "destination-topic": "", "max-in-flight": "200", "status-every": "250", "mode": "hostpool",
		"require-json-field": "", "require-json-value": "", "nsqd-tcp-address": "", "destination-nsqd-tcp-address": "", "lookupd-http-address": "",
		"topic": "", "whitelist-json-field": "", "consumer-opt": "", "producer-opt": "",
	},
	"nsq_tail": {
		"version": "false", "channel": "", "max-in-flight": "200", "n": "0", "print-topic": "false",
		"nsqd-tcp-address": "", "lookupd-http-address": "", "topic": "", "consumer-opt": "",
	},
	"nsq_stat": {
		"version": "false", "topic": "", "channel": "", "interval": "2s", "http-client-connect-timeout": "2s", "http-client-request-timeout": "5s",
		"nsqd-http-address": "", "lookupd-http-address": "", "count": "",
	},
	"to_nsq": {"topic": "", "delimiter": "\n", "nsqd-tcp-address": "", "producer-opt": "", "rate": "0"},
}

func TestEveryFlagOfNSQs(t *testing.T) {
	for name, want := range nsqFlags {
		fs := tool(t, name).Flags()
		for f, def := range want {
			switch got := fs.Lookup(f); {
			case got == nil:
				t.Errorf("%s has no -%s", name, f)
			case got.DefValue != def:
				t.Errorf("%s -%s has default %q, want %q", name, f, got.DefValue, def)
			}
		}
		fs.VisitAll(func(f *flag.Flag) {
			if _, ok := want[f.Name]; !ok && f.Name != "version" {
				t.Errorf("%s -%s is not NSQ's", name, f.Name)
			}
		})
	}
	if len(nsqFlags) != len(tools.All()) {
		t.Error("a utility is missing here")
	}
}

func words(line string) []string { return strings.Fields(line) }

func TestMisuse(t *testing.T) {
	const from = " -nsqd-tcp-address=127.0.0.1:1 "
	for _, row := range []struct{ name, words, want string }{
		{"nsq_tail", "-topik=x", "-topik; did you mean -topic?; see `nsq_tail --help`"},
		{"nsq_tail", "--nsqd-tcp-addr x", "did you mean -nsqd-tcp-address?"},
		{"nsq_tail", "-nsqd_tcp_address x", "did you mean -nsqd-tcp-address?"},
		{"nsq_tail", "-lookupd x", "did you mean -lookupd-http-address?"},
		{"nsq_tail", "-zzz", "flag provided but not defined: -zzz; see"},
		{"nsq_tail", "-n soon", `invalid value "soon" for flag -n`},
		{"nsq_tail", "-topic t" + from + "extra", `nsq_tail takes flags only, and there is "extra"`},
		{"nsq_tail", from, "--topic is needed"},
		{"nsq_tail", "-topic t", "--nsqd-tcp-address or --lookupd-http-address is needed"},
		{"nsq_tail", "-topic t -lookupd-http-address l:1" + from, "not both"},
		{"nsq_tail", "-topic t!" + from, `--topic "t!": a name has`},
		{"nsq_tail", "-topic t -channel c!" + from, `--channel "c!": a name has`},
		{"nsq_tail", "-topic t -n -1" + from, "--n -1"},
		{"nsq_tail", "-topic t -max-in-flight 0" + from, "--max-in-flight 0: want at least 1"},
		{"nsq_tail", "-topic t -consumer-opt=nosuch,1" + from, "invalid option nosuch"},
		{"nsq_tail", "-topic t -consumer-opt=,1" + from, "want NAME,VALUE"},
		{"nsq_tail", "-topic t -consumer-opt=heartbeat_interval,2m" + from, "--consumer-opt: HeartbeatInterval"},
		{"nsq_tail", "-topic t -lookupd-http-address portless", "--lookupd-http-address portless: missing port"},
		{"nsq_to_file", from, "--topic or --topic-pattern is needed"},
		{"nsq_to_file", "-topic-pattern x" + from, "--topic-pattern needs --lookupd-http-address"},
		{"nsq_to_file", "-topic-pattern ( -lookupd-http-address l:1", "--topic-pattern: error parsing regexp"},
		{"nsq_to_file", "-topic t -gzip-level 10" + from, "--gzip-level 10"},
		{"nsq_to_file", "-topic t -gzip -filename-format x" + from, "needs <REV>"},
		{"nsq_to_file", "-topic t -work-dir /x -filename-format x" + from, "needs <REV>"},
		{"nsq_to_file", "-topic t -sync-interval 0" + from, "--sync-interval"},
		{"nsq_to_file", "-topic t -topic-refresh 0" + from, "--topic-refresh"},
		{"nsq_to_file", "-topic t -rotate-size -1" + from, "--rotate-size"},
		{"nsq_to_file", "-topic t -http-client-connect-timeout 0" + from, "--http-client-connect-timeout"},
		{"nsq_to_file", "-topic t -log-level wran" + from, "did you mean warn?"},
		{"nsq_to_http", "-post http://h/" + from, "--topic is needed"},
		{"nsq_to_http", "-topic t" + from, "--get or --post is needed"},
		{"nsq_to_http", "-topic t -get http://h/%s -post http://h/" + from, "not both"},
		{"nsq_to_http", "-topic t -get http://h/" + from, "want %s in it once"},
		{"nsq_to_http", "-topic t -get http://h/%s%s" + from, "want %s in it once"},
		{"nsq_to_http", "-topic t -post h:80" + from, "want an address such as"},
		{"nsq_to_http", "-topic t -post http://h/ -header x:" + from, "want 'NAME: VALUE'"},
		{"nsq_to_http", "-topic t -post http://h/ -mode round_robin" + from, "did you mean round-robin?"},
		{"nsq_to_http", "-topic t -post http://h/ -sample 1.1" + from, "--sample 1.1"},
		{"nsq_to_http", "-topic t -post http://h/ -n 0" + from, "--n 0"},
		{"nsq_to_http", "-topic t -get http://h/%s -content-type text/plain" + from, "--content-type is for --post"},
		{"nsq_to_nsq", "-topic t" + from, "--destination-nsqd-tcp-address is needed"},
		{"nsq_to_nsq", from, "--topic is needed"},
		{"nsq_to_nsq", "-topic t -destination-topic t! -destination-nsqd-tcp-address d:1" + from, "--destination-topic"},
		{"nsq_to_nsq", "-topic t -mode multicast -destination-nsqd-tcp-address d:1" + from, "want one of hostpool"},
		{"nsq_to_nsq", "-topic t -require-json-value x -destination-nsqd-tcp-address d:1" + from, "needs --require-json-field"},
		{"nsq_stat", "-topic t", "--topic and --channel are needed"},
		{"nsq_stat", "-topic t -channel c", "--nsqd-http-address or --lookupd-http-address is needed"},
		{"nsq_stat", "-topic t -channel c -nsqd-http-address http://h:1", "without a scheme"},
		{"nsq_stat", "-topic t -channel c -nsqd-http-address h:1 -interval 0", "--interval 0s"},
		{"nsq_stat", "-topic t -channel c -nsqd-http-address h:1 -count 0", "--count 0"},
		{"nsq_stat", "-topic t -channel c -nsqd-http-address h:1 -count x", "want a number"},
		{"to_nsq", from, "--topic is needed"},
		{"to_nsq", "-topic t", "--nsqd-tcp-address is needed"},
		{"to_nsq", "-topic t -delimiter ab" + from, "want a single byte"},
		{"to_nsq", "-topic t -rate -1" + from, "--rate -1"},
		{"to_nsq", "-topic t -producer-opt max_attempts,many" + from, "max_attempts"},
	} {
		t.Run(row.name+" "+row.words, func(t *testing.T) {
			err := tool(t, row.name).Run(t.Context(), tools.Env{Out: new(bytes.Buffer), Err: new(bytes.Buffer)}, words(row.words))
			if !errors.Is(err, tools.ErrUsage) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want a usage error with %q", err, row.want)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, tool := range tools.All() {
		for _, w := range []string{"-h", "-help", "--help"} {
			var out bytes.Buffer
			if err := tool.Run(t.Context(), tools.Env{Out: &out}, []string{w}); err != nil {
				t.Errorf("%s %s: %v", tool.Name, w, err)
			}
			text := out.String()
			if !strings.HasPrefix(text, "Usage of "+tool.Name+":\n  -") {
				t.Errorf("help of %s begins with %.60q", tool.Name, text)
			}
			for f := range nsqFlags[tool.Name] {
				if !strings.Contains(text, "\n  -"+f) {
					t.Errorf("help of %s does not tell of -%s", tool.Name, f)
				}
			}
		}
		var out bytes.Buffer
		if err := tool.Run(t.Context(), tools.Env{Out: &out}, []string{"-version"}); err != nil || !strings.HasPrefix(out.String(), tool.Name+" v1.3.0 (tidings ") {
			t.Errorf("%s -version: %q, %v", tool.Name, &out, err)
		}
		if tool.Short == "" || tool.Long == "" || tool.Example == "" {
			t.Errorf("%s does not say what it is", tool.Name)
		}
	}
}

func TestAllFormsOfAFlag(t *testing.T) {
	for _, form := range []string{"-topic t!", "-topic=t!", "--topic t!", "--topic=t!"} {
		err := tool(t, "nsq_tail").Run(t.Context(), tools.Env{}, words("-nsqd-tcp-address=127.0.0.1:1 "+form))
		if err == nil || !strings.Contains(err.Error(), `--topic "t!"`) {
			t.Errorf("%s: %v", form, err)
		}
	}
}
