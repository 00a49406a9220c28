package bench

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Machine is where a measurement was made; numbers mean nothing without it.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Disk   string `json:"disk"` // kind of file system under the data
	Load   string `json:"load"` // load average when it began
	Go     string `json:"go"`
}

// ThisMachine looks around; dir is where the data will be.
func ThisMachine(dir string) Machine {
	m := Machine{CPU: "unknown CPU", Cores: runtime.NumCPU(), Kernel: runtime.GOOS, Disk: fileSystem(dir), Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range bytes.Lines(b) {
			if k, v, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(k)) == "model name" {
				m.CPU = string(bytes.TrimSpace(v))
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = "Linux " + string(bytes.TrimSpace(b))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	return m
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %s, data on %s, %s, load before %s", m.CPU, m.Cores, m.Kernel, m.Disk, m.Go, m.Load)
}

// Warning says what makes numbers of this machine doubtful; empty if nothing.
func (m Machine) Warning() string {
	switch m.Disk {
	case "tmpfs":
		return "the data is on tmpfs, where syncing costs nothing: durable rows mean nothing (choose --dir)"
	case "overlay":
		return "the data is on an overlay file system: its syncs may differ from the disk's (choose --dir)"
	}
	return ""
}
