package config

import (
	"fmt"
	"reflect"
	"time"
)

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

// Unused are nsqd's settings that mean nothing here: there are no disk queues,
// nothing is scanned for timeouts, and the log has fields instead of a prefix.
// Under the name nsqd they are accepted, said once, and shown by /config, so
// that scripts and tools go on working. The tags are those of Config; hidden
// are those that /config does not show.
type Unused struct {
	LogPrefix                string        `name:"log-prefix" default:"[nsqd] "`
	MaxBytesPerFile          int           `name:"max-bytes-per-file" default:"104857600"`
	SyncEvery                int           `name:"sync-every" default:"2500"`
	SyncTimeout              time.Duration `name:"sync-timeout" default:"2s"`
	QueueScanWorkerPoolMax   int           `name:"queue-scan-worker-pool-max" default:"4"`
	QueueScanSelectionCount  int           `name:"queue-scan-selection-count" default:"20"`
	QueueScanInterval        time.Duration `name:"queue-scan-interval" default:"100ms" hidden:"true"`
	QueueScanRefreshInterval time.Duration `name:"queue-scan-refresh-interval" default:"5s" hidden:"true"`
	QueueScanDirtyPercent    float64       `name:"queue-scan-dirty-percent" default:"0.25" hidden:"true"`
	EnableExperiment         List          `name:"enable-experiment"`
	Verbose                  bool          `name:"verbose" default:"false" hidden:"true"`
	WorkerID                 string        `name:"worker-id" bool:"true" number:"true" hidden:"true"`
}

// Fields lists the settings in the order of the struct; setting one changes u.
func (u *Unused) Fields() []Field { return fieldsOf(reflect.ValueOf(u).Elem(), false) }
