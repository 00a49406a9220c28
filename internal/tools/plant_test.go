//go:build faults

package tools

import (
	"testing"

	"github.com/tidings-io/tidings/internal/plant"
)

func TestFinishingEarlyIsCaught(t *testing.T) {
	defer plant.Set()
	plant.Set("nsq-to-file-finishes-early")
	d := &disk{t: t, dir: t.TempDir(), hidden: true}
	logAll(t, d, outputConfig{})
	if d.faults == 0 {
		t.Error("nobody has seen that messages are finished before they are on disk")
	}
	if left := plant.Unasked(); left != nil {
		t.Errorf("not reached: %q", left)
	}
}
