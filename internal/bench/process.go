package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Process reads a broker's CPU time and memory from /proc. A nil one knows
// nothing, and so does one on a system without /proc.
type Process struct{ PID int }

// clockTick is the unit of times in /proc/PID/stat; Linux fixes it at 100 Hz
// for programs whatever the kernel uses.
const clockTick = 10 * time.Millisecond

// Known says whether the process can be read.
func (p *Process) Known() error {
	if p == nil {
		return fmt.Errorf("no process")
	}
	_, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	return err
}

// cpu is user and system time since the process started; 0 when not known.
func (p *Process) cpu() time.Duration {
	if p == nil {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return 0
	}
	// The second field is the name in parentheses and may hold anything.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	return time.Duration(user+system) * clockTick
}

// rss is resident memory in bytes, now and at its highest; 0 when not known.
func (p *Process) rss() (now, peak int64) {
	v := p.numbers("status")
	return v["VmRSS"] << 10, v["VmHWM"] << 10 // in KiB
}

// written is how many bytes the process has given to file systems; 0 when not
// known.
func (p *Process) written() int64 { return p.numbers("io")["write_bytes"] }

// numbers reads a file of the process with lines such as "VmRSS:  123 kB".
func (p *Process) numbers(file string) map[string]int64 {
	if p == nil {
		return nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID, file))
	if err != nil {
		return nil
	}
	out := make(map[string]int64)
	for line := range bytes.Lines(b) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		if f := bytes.Fields(value); len(f) > 0 {
			if n, err := strconv.ParseInt(string(f[0]), 10, 64); err == nil {
				out[string(key)] = n
			}
		}
	}
	return out
}
