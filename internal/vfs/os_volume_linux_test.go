package vfs

import (
	"errors"
	"testing"
)

func TestReleaseTells(t *testing.T) {
	for release, want := range map[string]bool{
		"6.1.0-13-amd64": true, "5.8": true, "5.10.0": true, "10.0": true,
		"5.7.19": false, "5.4.0-200-generic": false, "4.18.0-553.el8_10.x86_64": false, "3.10": false, "": false, "strange": false,
	} {
		if got := releaseTells(release); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}

// A file system that is not known to report what it could not write has no
// volume to sync.
func TestNoVolumeOfOtherFileSystems(t *testing.T) {
	if _, err := (OS{}).OpenVolume("/proc"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("volume of /proc: %v", err)
	}
}
