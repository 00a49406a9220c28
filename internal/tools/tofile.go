package tools

import (
	"context"
	"flag"
	"log"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/nsqio/go-nsq"
	"golang.org/x/sync/errgroup"
)

func toFileTool() Tool {
	return Tool{
		Name: "nsq_to_file", Short: "Write a topic's messages to files",
		Long: `Consume topics and write each message as a line to a file of its topic. A
message is finished only after it is on disk: written, synced, and the file's
name synced too. After a crash some messages stand twice; none is missing.

--topic names topics; without it --lookupd-http-address and --topic-pattern find
them, at the start and every --topic-refresh. SIGHUP closes the files, which the
next message opens anew. SIGINT and SIGTERM write and finish what is on its way.

Beyond NSQ's own: messages are tried for as long as it takes (NSQ's gives up,
and finishes, after 5 attempts; --consumer-opt=max_attempts,5 does that), the
torn line that a crash left is ended before the next message, topics are looked
up at the start already, and a disk or a first connection that fails ends it.
What a crash left in --work-dir stays there: read it, too.`,
		Example: `  tidings nsq_to_file -topic orders -output-dir /var/log/orders -nsqd-tcp-address 127.0.0.1:4150
  tidings nsq_to_file -topic-pattern '^audit' -gzip -rotate-interval 1h -lookupd-http-address 127.0.0.1:4161`,
		make: func() command {
			return &toFile{source: newSource("nsq_to_file", "nsq_to_file", 0), loggers: make(map[string]*fileLogger)}
		},
	}
}

// toFile is nsq_to_file.
type toFile struct {
	source
	web
	out            outputConfig
	topics         list
	pattern        string
	refresh        time.Duration
	hostIdentifier string
	skipEmpty      bool
	syncInterval   time.Duration
	level, prefix  string

	// made by check
	matches  *regexp.Regexp
	logLevel nsq.LogLevel

	// of run, which owns them
	log     *log.Logger
	http    *http.Client
	host    string
	loggers map[string]*fileLogger
}

func (t *toFile) define(fs *flag.FlagSet) {
	t.source.define(fs)
	t.web.define(fs, 5*time.Second)
	fs.Var(&t.topics, "topic", "NSQ topic to consume (may be given multiple times)")
	fs.StringVar(&t.pattern, "topic-pattern", "", "regular expression: consume only topics that match")
	fs.DurationVar(&t.refresh, "topic-refresh", time.Minute, "how often topics are looked up")
	fs.StringVar(&t.out.outputDir, "output-dir", "/tmp", "folder of the files")
	fs.StringVar(&t.out.workDir, "work-dir", "", "folder of files that are still written (default: output-dir)")
	fs.StringVar(&t.out.format, "filename-format", "<TOPIC>.<HOST><REV>.<DATETIME>.log",
		"name of a file; <TOPIC>, <HOST>, <PID>, <DATETIME> and <REV>, a number that rises while a file of that name exists, are filled in")
	fs.StringVar(&t.out.datetime, "datetime-format", "%Y-%m-%d_%H", "strftime format of <DATETIME>")
	fs.StringVar(&t.hostIdentifier, "host-identifier", "", "what <HOST> is, instead of the short name of this host; <SHORT_HOST> and <HOSTNAME> are filled in")
	fs.BoolVar(&t.out.gzip, "gzip", false, "compress the files")
	fs.IntVar(&t.out.gzipLevel, "gzip-level", 6, "how hard to compress, from 1 (fast) to 9 (small)")
	fs.BoolVar(&t.skipEmpty, "skip-empty-files", false, "make no file before there is a message for it")
	fs.Int64Var(&t.out.rotateSize, "rotate-size", 0, "begin a new file when one has more than so many `bytes` (0: no bound)")
	fs.DurationVar(&t.out.rotateInterval, "rotate-interval", 0, "begin a new file when one is older (0: no bound)")
	fs.DurationVar(&t.syncInterval, "sync-interval", 30*time.Second, "write and finish what has come at least so often")
	fs.StringVar(&t.level, "log-level", "info", "what to log: debug, info, warn, error or fatal")
	fs.StringVar(&t.prefix, "log-prefix", "[nsq_to_file] ", "what each line of the log begins with")
}

func (t *toFile) check() error {
	if err := t.source.check(t.topics...); err != nil {
		return err
	}
	if err := t.web.check(); err != nil {
		return err
	}
	switch {
	case len(t.topics) == 0 && t.pattern == "":
		return usagef("--topic or --topic-pattern is needed")
	case len(t.topics) == 0 && len(t.lookup) == 0:
		return usagef("--topic-pattern needs --lookupd-http-address, which knows the topics")
	case t.out.gzipLevel < 1 || t.out.gzipLevel > 9:
		return usagef("--gzip-level %d: want 1 to 9", t.out.gzipLevel)
	case t.refresh <= 0:
		return usagef("--topic-refresh %s: want more than 0", t.refresh)
	case t.syncInterval <= 0:
		return usagef("--sync-interval %s: want more than 0", t.syncInterval)
	case t.out.rotateSize < 0 || t.out.rotateInterval < 0:
		return usagef("--rotate-size and --rotate-interval: want at least 0")
	}
	var err error
	if t.matches, err = regexp.Compile(t.pattern); err != nil {
		return usagef("--topic-pattern: %w", err)
	}
	if t.logLevel, err = parseLevel(t.level); err != nil {
		return err
	}
	if t.out.workDir == "" {
		t.out.workDir = t.out.outputDir
	}
	_, err = t.out.fileFormat("", "")
	return err
}

func parseLevel(name string) (nsq.LogLevel, error) {
	switch strings.ToLower(name) {
	case "debug":
		return nsq.LogLevelDebug, nil
	case "info":
		return nsq.LogLevelInfo, nil
	case "warn":
		return nsq.LogLevelWarning, nil
	case "error", "fatal":
		return nsq.LogLevelError, nil
	}
	return 0, choice("log-level", name, "debug", "info", "warn", "error", "fatal")
}

func (t *toFile) run(ctx context.Context, env Env) error {
	t.log = log.New(env.Err, t.prefix, log.LstdFlags|log.Lmicroseconds)
	t.http = t.client(1)
	full, short, err := hostNames()
	if err != nil {
		return err
	}
	t.host = short
	if t.hostIdentifier != "" {
		t.host = strings.NewReplacer("<SHORT_HOST>", short, "<HOSTNAME>", full).Replace(t.hostIdentifier)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return t.supervise(ctx, env, group) })
	return group.Wait()
}

// supervise starts a logger for every topic, as topics come to be known, until
// ctx ends.
func (t *toFile) supervise(ctx context.Context, env Env, group *errgroup.Group) error {
	for _, topic := range t.topics {
		if !t.matches.MatchString(topic) {
			t.logf(nsq.LogLevelWarning, "topic %s is left out: it does not match %s", topic, t.pattern)
			continue
		}
		if err := t.start(ctx, env, group, topic); err != nil {
			return err
		}
	}
	var tick <-chan time.Time
	if len(t.topics) == 0 {
		refresh := time.NewTicker(t.refresh)
		defer refresh.Stop()
		tick = refresh.C
		t.discover(ctx, env, group)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
			t.discover(ctx, env, group)
		case <-env.Hangup:
			for _, l := range t.loggers {
				select {
				case l.hangup <- struct{}{}:
				default: // it is about to close its file anyway
				}
			}
		}
	}
}

// discover starts a logger for every topic that the nsqlookupds know. What
// fails is tried again with the next refresh.
func (t *toFile) discover(ctx context.Context, env Env, group *errgroup.Group) {
	topics, failed, err := lookupTopics(ctx, t.http, t.lookup)
	if err != nil {
		failed = []error{err}
	}
	for _, err := range failed {
		if ctx.Err() == nil {
			t.logf(nsq.LogLevelError, "look up topics: %v", err)
		}
	}
	for _, topic := range topics {
		if !t.matches.MatchString(topic) || ctx.Err() != nil {
			continue
		}
		if err := t.start(ctx, env, group, topic); err != nil {
			t.logf(nsq.LogLevelError, "topic %s: %v", topic, err)
		}
	}
}

// start begins to log a topic, if that has not begun yet.
func (t *toFile) start(ctx context.Context, env Env, group *errgroup.Group, topic string) error {
	if t.loggers[topic] != nil {
		return nil
	}
	name, err := t.out.fileFormat(topic, t.host)
	if err != nil {
		return err
	}
	c, err := t.consumer(env, topic, t.logLevel)
	if err != nil {
		return err
	}
	logf := func(format string, args ...any) {
		t.logf(nsq.LogLevelInfo, "["+topic+"/"+t.channel+"] "+format, args...)
	}
	l := newFileLogger(c, newOutput(t.out, name, logf), t.maxInFlight)
	l.skipEmpty, l.syncInterval = t.skipEmpty, t.syncInterval
	c.AddHandler(l)
	if err := t.connect(c); err != nil {
		c.Stop()
		return err
	}
	t.loggers[topic] = l
	group.Go(func() error { return l.run(ctx) })
	return nil
}

// logf logs if the level is asked for; its name stands in the line, as in
// NSQ's.
func (t *toFile) logf(level nsq.LogLevel, format string, args ...any) {
	if level < t.logLevel {
		return
	}
	name := map[nsq.LogLevel]string{nsq.LogLevelDebug: "DEBUG", nsq.LogLevelInfo: "INFO", nsq.LogLevelWarning: "WARNING", nsq.LogLevelError: "ERROR"}[level]
	t.log.Printf(name+": "+format, args...)
}

// hostNames is what this host is called, whole and up to the first dot.
func hostNames() (full, short string, err error) {
	full, err = os.Hostname()
	short, _, _ = strings.Cut(full, ".")
	return full, short, err
}
