package tools

import (
	"encoding/json"
	"flag"
	"fmt"
	"strconv"
)

// filter is what nsq_to_nsq does to messages that are JSON objects. Without
// fields it does nothing, and messages can be anything.
type filter struct {
	field, value string // of require-json-*
	keep         list

	number   float64 // value as a number, if isNumber
	isNumber bool
}

func (f *filter) define(fs *flag.FlagSet) {
	fs.StringVar(&f.field, "require-json-field", "", "pass only JSON messages that have this field")
	fs.StringVar(&f.value, "require-json-value", "", "pass only JSON messages in which the field of --require-json-field is this string or number")
	fs.Var(&f.keep, "whitelist-json-field", "pass this field of JSON messages, and no others (may be given multiple times)")
}

func (f *filter) check() error {
	if f.value != "" && f.field == "" {
		return usagef("--require-json-value needs --require-json-field")
	}
	n, err := strconv.ParseFloat(f.value, 64)
	f.number, f.isNumber = n, err == nil
	return nil
}

// apply returns the message as it is to be passed on; false: it is not. An
// error is a message that is no JSON object.
func (f *filter) apply(body []byte) (out []byte, pass bool, err error) {
	if f.field == "" && len(f.keep) == 0 {
		return body, true, nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil {
		return nil, false, fmt.Errorf("decode as a JSON object: %w", err)
	}
	if f.field != "" {
		value, has := object[f.field]
		if !has || f.value != "" && !f.fits(value) {
			return nil, false, nil
		}
	}
	if len(f.keep) == 0 {
		return body, true, nil
	}
	kept := make(map[string]json.RawMessage, len(f.keep))
	for _, name := range f.keep {
		if value, has := object[name]; has {
			kept[name] = value
		}
	}
	out, err = json.Marshal(kept)
	return out, err == nil, err
}

// fits says that the field's value is the one asked for: the same string, or
// the same number.
func (f *filter) fits(raw json.RawMessage) bool {
	var value any
	if json.Unmarshal(raw, &value) != nil {
		return false
	}
	switch v := value.(type) {
	case string:
		return v == f.value
	case float64:
		return f.isNumber && v == f.number
	}
	return false
}
