package nsqdatatest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Unpack writes a folder that a real nsqd left (see testdata/README.md of nsqdata)
// into dir, and returns the bodies that channel a of topic orders had finished.
func Unpack(file, dir string) (finished []string, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var real struct {
		Files    map[string][]byte
		Finished []string
	}
	if err := json.Unmarshal(data, &real); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for name, b := range real.Files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600); err != nil {
			return nil, err
		}
	}
	return real.Finished, nil
}
