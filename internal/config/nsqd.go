package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// errUnprotected refuses a setting of nsqd's that guards a node.
var errUnprotected = errors.New("this version has no TLS and no AUTH and would be open where nsqd is guarded; take the setting out if that is what you want")

// Unprotected returns an error if the value of nsqd's setting name (a flag name
// or a file key) asks for protection that this version can't give. Everything
// else of nsqd's may be passed over in a warning, this may not.
func Unprotected(name string, value any) error {
	asked := false
	text := fmt.Sprint(value)
	switch strings.ReplaceAll(name, "-", "_") {
	case "tls_required": // true, or nsqd's own "tcp-https"
		on, err := strconv.ParseBool(text)
		asked = text != "" && (err != nil || on)
	case "tls_client_auth_policy":
		asked = text != ""
	case "auth_http_address", "auth_http_addresses":
		asked = text != ""
		if v := reflect.ValueOf(value); v.Kind() == reflect.Slice {
			asked = v.Len() > 0
		}
	}
	if asked {
		return errUnprotected
	}
	return nil
}

// adaptNSQD makes good what nsqd takes without a word: an empty data path is
// the working directory, and two limits may contradict each other.
func (c *Config) adaptNSQD() (warnings []string) {
	if c.DataPath == "" {
		c.DataPath = "."
	}
	if c.MaxMsgSize > c.MaxBodySize {
		warnings = append(warnings, fmt.Sprintf("--max-body-size %s is raised to --max-msg-size %s", c.MaxBodySize, c.MaxMsgSize))
		c.MaxBodySize = c.MaxMsgSize
	}
	if c.MsgTimeout > c.MaxMsgTimeout {
		warnings = append(warnings, fmt.Sprintf("--max-msg-timeout %s is raised to --msg-timeout %s", c.MaxMsgTimeout, c.MsgTimeout))
		c.MaxMsgTimeout = c.MsgTimeout
	}
	return warnings
}
