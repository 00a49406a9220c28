package config

import "fmt"

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
