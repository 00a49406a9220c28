package admin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// change is something to be done to a topic or channel.
type change struct {
	Verb     string
	Topic    string
	Channel  string
	Ack      string
	Attempts int
	Dead     string
	// Partitions is how many the topic is to have; 0: as usual.
	Partitions int
	Messages   []publish
	DueNs      int64
}

// publish is a message to publish; exactly one of text and body.
type publish struct {
	Text *string `json:"text,omitempty"`
	Body []byte  `json:"body,omitempty"`
	Key  string  `json:"key,omitempty"`
	Name string  `json:"name,omitempty"`
}

func (p *publish) bytes() []byte {
	if p.Text != nil {
		return []byte(*p.Text)
	}
	return p.Body
}

// The verbs.
const (
	verbCreate  = "create"
	verbDelete  = "delete"
	verbPause   = "pause"
	verbResume  = "resume"
	verbEmpty   = "empty"
	verbAck     = "ack"
	verbLimit   = "limit"
	verbRaise   = "raise"
	verbPublish = "publish"
)

// do does it, wherever the topic or channel is.
func (e *Engine) do(ctx context.Context, c *change) error {
	b := e.Broker
	if c.Channel != "" {
		switch c.Verb {
		case verbCreate:
			return b.CreateChannel(ctx, c.Topic, c.Channel)
		case verbDelete:
			return b.DeleteChannel(ctx, c.Topic, c.Channel)
		case verbPause, verbResume:
			return b.PauseChannel(ctx, c.Topic, c.Channel, c.Verb == verbPause)
		case verbEmpty:
			return b.EmptyChannel(ctx, c.Topic, c.Channel)
		case verbLimit:
			return b.SetMaxAttempts(ctx, c.Topic, c.Channel, c.Attempts, c.Dead)
		}
	}
	switch c.Verb {
	case verbCreate:
		if c.Partitions != 0 {
			return b.CreatePartitioned(ctx, c.Topic, c.Partitions)
		}
		return b.CreateTopic(ctx, c.Topic)
	case verbRaise:
		return b.RaisePartitions(ctx, c.Topic, c.Partitions)
	case verbDelete:
		return b.DeleteTopic(ctx, c.Topic)
	case verbPause, verbResume:
		return b.PauseTopic(ctx, c.Topic, c.Verb == verbPause)
	case verbEmpty:
		return b.EmptyTopic(ctx, c.Topic)
	case verbAck:
		a := meta.AckDefault
		if c.Ack != "default" {
			var ok bool
			if a, ok = meta.ParseAck(c.Ack); !ok {
				return fault.New(fault.InvalidRequest, "ack %q: want quorum, leader, local or default", c.Ack)
			}
		}
		return b.SetAck(ctx, c.Topic, a)
	case verbPublish:
		msgs := make([]broker.Message, len(c.Messages))
		for i := range c.Messages {
			p := &c.Messages[i]
			msgs[i] = broker.Message{Body: p.bytes(), DueNs: c.DueNs}
			if p.Key != "" {
				msgs[i].Key = []byte(p.Key)
			}
			if p.Name != "" {
				msgs[i].ID = []byte(p.Name)
			}
		}
		return b.PublishWait(ctx, c.Topic, msgs)
	}
	return fault.New(fault.Unsupported, "the change %q is not known to this program", c.Verb)
}

// changePatience bounds a change.
const changePatience = 30 * time.Second

// changed does a change and answers the equal command line.
func (f *Front) changed(ctx context.Context, e *Engine, c *change, cli ...string) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	err := e.do(ctx, c)
	f.sampler.changed()
	if err != nil {
		return nil, err
	}
	return Done{CLI: commandLine(cli...)}, nil
}

// commandLine is what does the same in a shell.
func commandLine(words ...string) string {
	out := make([]string, 0, len(words)+1)
	out = append(out, "tidings")
	for _, w := range words {
		out = append(out, quote(w))
	}
	return strings.Join(out, " ")
}

// quote writes a word for a shell.
func quote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:=,"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// topicChange does a verb to the topic or channel that the path names.
func (f *Front) topicChange(verb string, yes bool) handler {
	return func(ctx context.Context, e *Engine, r *http.Request) (any, error) {
		c := &change{Verb: verb, Topic: r.PathValue("topic"), Channel: r.PathValue("channel")}
		word := verb
		if verb == verbDelete {
			word = "rm"
		}
		cli := []string{"topic", word, c.Topic}
		if c.Channel != "" {
			cli = []string{"channel", word, c.Topic, c.Channel}
		}
		if yes {
			cli = append(cli, "--yes")
		}
		if c.Channel == "" && strings.Contains(r.Pattern, "{channel}") {
			return nil, fault.InvalidChannel
		}
		return f.changed(ctx, e, c, cli...)
	}
}

func (f *Front) createTopic(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	var body struct {
		Name       string `json:"name"`
		Ack        string `json:"ack"`
		Partitions *int   `json:"partitions"`
	}
	if err := decode(r, &body, maxRequest); err != nil {
		return nil, err
	}
	if err := checkAck(body.Ack); err != nil {
		return nil, err
	}
	c := &change{Verb: verbCreate, Topic: body.Name}
	cli := []string{"topic", "create", body.Name}
	if body.Partitions != nil {
		if err := checkPartitions(*body.Partitions); err != nil {
			return nil, err
		}
		c.Partitions = *body.Partitions
		cli = append(cli, "--partitions", strconv.Itoa(c.Partitions))
	}
	done, err := f.changed(ctx, e, c, cli...)
	if err != nil || body.Ack == "" {
		return done, err
	}
	return f.setAck(ctx, e, body.Name, body.Ack)
}

func checkAck(ack string) error {
	switch ack {
	case "", "quorum", "leader", "local", "default":
		return nil
	}
	return fault.New(fault.InvalidRequest, "ack %q: want quorum, leader or default", ack)
}

func (f *Front) setAck(ctx context.Context, e *Engine, topic, ack string) (any, error) {
	return f.changed(ctx, e, &change{Verb: verbAck, Topic: topic, Ack: ack}, "topic", "create", topic, "--ack", ack)
}

func (f *Front) setTopic(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	var body struct {
		Ack        string `json:"ack"`
		Partitions *int   `json:"partitions"`
	}
	if err := decode(r, &body, maxRequest); err != nil {
		return nil, err
	}
	if err := checkAck(body.Ack); err != nil {
		return nil, err
	}
	if body.Ack == "" && body.Partitions == nil {
		return nil, fault.New(fault.InvalidRequest, "there is nothing to set: want ack or partitions")
	}
	topic := r.PathValue("topic")
	if _, err := e.knownTopic(topic); err != nil {
		return nil, err
	}
	if body.Partitions == nil {
		return f.setAck(ctx, e, topic, body.Ack)
	}
	if err := checkPartitions(*body.Partitions); err != nil {
		return nil, err
	}
	done, err := f.changed(ctx, e, &change{Verb: verbRaise, Topic: topic, Partitions: *body.Partitions},
		"topic", "set", topic, "--partitions", strconv.Itoa(*body.Partitions))
	if err != nil || body.Ack == "" {
		return done, err
	}
	return f.setAck(ctx, e, topic, body.Ack)
}

func checkPartitions(n int) error {
	if n < 1 || n > meta.MaxPartitions {
		return fault.New(fault.InvalidRequest, "partitions %d: want 1 to %d", n, meta.MaxPartitions)
	}
	return nil
}

func (f *Front) createChannel(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	var body struct {
		Name string `json:"name"`
	}
	if err := decode(r, &body, maxRequest); err != nil {
		return nil, err
	}
	if body.Name == "" {
		return nil, fault.New(fault.InvalidChannel, "name is missing")
	}
	topic := r.PathValue("topic")
	return f.changed(ctx, e, &change{Verb: verbCreate, Topic: topic, Channel: body.Name}, "channel", "create", topic, body.Name)
}

// setChannel limits the attempts of a channel's messages.
func (f *Front) setChannel(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	var body struct {
		MaxAttempts *int   `json:"max_attempts"`
		DeadLetter  string `json:"dead_letter"`
	}
	if err := decode(r, &body, maxRequest); err != nil {
		return nil, err
	}
	if body.MaxAttempts == nil {
		return nil, fault.New(fault.InvalidRequest, "there is nothing to set: want max_attempts")
	}
	c := &change{Verb: verbLimit, Topic: r.PathValue("topic"), Channel: r.PathValue("channel"), Attempts: *body.MaxAttempts, Dead: body.DeadLetter}
	cli := []string{"channel", "set", c.Topic, c.Channel, "--max-attempts", strconv.Itoa(c.Attempts)}
	if c.Dead != "" {
		cli = append(cli, "--dead-letter", c.Dead)
	}
	return f.changed(ctx, e, c, cli...)
}

// Bounds of a publish.
const (
	publishMax   = 1000
	keyMax       = 1024
	shownBodyMax = 200 // bytes of a body in the command line
)

func (f *Front) publish(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	var body struct {
		Messages []publish `json:"messages"`
		DeferMs  int64     `json:"defer_ms"`
	}
	if err := decode(r, &body, 2*e.MaxBodySize+maxRequest); err != nil {
		return nil, err
	}
	if err := e.checkPublish(body.Messages, body.DeferMs); err != nil {
		return nil, err
	}
	topic := r.PathValue("topic")
	c := &change{Verb: verbPublish, Topic: topic, Messages: body.Messages}
	if body.DeferMs > 0 {
		c.DueNs = time.Now().Add(time.Duration(body.DeferMs) * time.Millisecond).UnixNano()
	}
	_, err := f.changed(ctx, e, c)
	if err != nil {
		return nil, err
	}
	return Done{CLI: pubLine(topic, body.Messages, body.DeferMs), Count: len(body.Messages)}, nil
}

func (e *Engine) checkPublish(list []publish, deferMs int64) error {
	switch {
	case len(list) == 0 || len(list) > publishMax:
		return fault.New(fault.InvalidRequest, "messages: want 1 to %d", publishMax)
	case deferMs < 0 || deferMs > e.MaxDeferMs:
		return fault.New(fault.InvalidDefer, "defer_ms %d: want at most %d", deferMs, e.MaxDeferMs)
	}
	size := int64(0)
	for i := range list {
		p := &list[i]
		n := int64(len(p.bytes()))
		switch {
		case p.Text != nil && p.Body != nil:
			return fault.New(fault.InvalidRequest, "message %d has both text and body", i)
		case n == 0:
			return fault.New(fault.MessageEmpty, "message %d is empty", i)
		case n > e.MaxMsgSize:
			return fault.New(fault.MessageTooBig, "message %d has %d bytes: want at most %d", i, n, e.MaxMsgSize)
		case len(p.Key) > keyMax || len(p.Name) > keyMax:
			return fault.New(fault.InvalidRequest, "message %d: key and name have at most %d bytes", i, keyMax)
		}
		size += n
	}
	if size > e.MaxBodySize {
		return fault.New(fault.BodyTooBig, "%d bytes of messages: want at most %d", size, e.MaxBodySize)
	}
	return nil
}

// pubLine is the command that publishes the same; what is long or no text comes
// from a file.
func pubLine(topic string, list []publish, deferMs int64) string {
	words := []string{"pub", topic}
	first, tail := list[0].bytes(), ""
	switch {
	case len(list) > 1:
		tail = " < FILE"
	case len(first) <= shownBodyMax && utf8.Valid(first) && !strings.ContainsRune(string(first), 0) && string(first) != "-":
		words = append(words, string(first))
	default:
		words, tail = append(words, "--delimiter", ""), " < FILE"
	}
	if list[0].Key != "" {
		words = append(words, "--key", list[0].Key)
	}
	if list[0].Name != "" && len(list) == 1 {
		words = append(words, "--id", list[0].Name)
	}
	if deferMs > 0 {
		words = append(words, "--delay", (time.Duration(deferMs) * time.Millisecond).String())
	}
	return commandLine(words...) + tail
}

func (f *Front) addShards(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	var body struct {
		Count int `json:"count"`
	}
	if err := decode(r, &body, maxRequest); err != nil {
		return nil, err
	}
	ids, waits, err := f.o.AddShards(ctx, body.Count)
	f.sampler.changed()
	if err != nil {
		return nil, err
	}
	return ShardsAdded{
		CLI:    commandLine("cluster", "shards", "add", strconv.Itoa(body.Count)),
		Shards: ids, Total: len(e.Meta.View().Shards), Waits: waits,
	}, nil
}

func (f *Front) transferShard(ctx context.Context, _ *Engine, r *http.Request) (any, error) {
	id, err := shardParam(r)
	if err != nil {
		return nil, err
	}
	var body struct {
		To string `json:"to"`
	}
	if err := decode(r, &body, maxRequest); err != nil {
		return nil, err
	}
	if body.To == "" {
		return nil, fault.New(fault.InvalidRequest, "to: want the name of a member")
	}
	err = f.o.Transfer(ctx, id, body.To)
	f.sampler.changed()
	if err != nil {
		return nil, err
	}
	return Done{CLI: commandLine("cluster", "transfer", "--shard", strconv.FormatUint(uint64(id), 10), "--to", body.To)}, nil
}

// decode reads the JSON body of a request, which may have so many bytes.
func decode(r *http.Request, into any, most int64) error {
	d := json.NewDecoder(io.LimitReader(r.Body, most+1))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); err == nil {
			err = errors.New("something follows the JSON")
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	} else if errors.Is(err, io.EOF) {
		err = errors.New("the body is empty: want JSON")
	}
	var wrong *json.UnmarshalTypeError
	var digit base64.CorruptInputError
	switch {
	case d.InputOffset() > most:
		return fault.New(fault.BodyTooBig, "the body has more than %d bytes", most)
	case errors.As(err, &wrong) && wrong.Field == "":
		return fault.New(fault.InvalidRequest, "the body is a JSON %s: want an object", wrong.Value)
	case errors.As(err, &wrong):
		return fault.New(fault.InvalidRequest, "%s is not to be a JSON %s", wrong.Field, wrong.Value)
	case errors.As(err, &digit):
		return fault.New(fault.InvalidRequest, "a body or key is not base64: %v", err)
	case err != nil:
		return fault.Wrap(fault.InvalidRequest, err)
	}
	return nil
}
