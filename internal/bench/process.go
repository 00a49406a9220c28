package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Processes are the ids of the processes that make up a broker, whose CPU time
// and memory are read from /proc and added up. None, or a system without /proc,
// gives 0 for everything.
type Processes []int

// clockTick is the unit of times in /proc/PID/stat; Linux fixes it at 100 Hz
// for programs whatever the kernel uses.
const clockTick = 10 * time.Millisecond

// Known says whether all of them can be read.
func (ps Processes) Known() error {
	if len(ps) == 0 {
		return fmt.Errorf("no process")
	}
	for _, pid := range ps {
		if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil {
			return err
		}
	}
	return nil
}

// cpu is user and system time since the processes started; those that are not
// known count 0.
func (ps Processes) cpu() (sum time.Duration) {
	for _, pid := range ps {
		sum += cpuOf(pid)
	}
	return sum
}

func cpuOf(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
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

// rss is resident memory in bytes: now, and the highest of each process since it
// started, which need not have been at the same moment.
func (ps Processes) rss() (now, peak int64) {
	for _, pid := range ps {
		v := numbers(pid, "status")
		now, peak = now+v["VmRSS"]<<10, peak+v["VmHWM"]<<10 // in KiB
	}
	return now, peak
}

// written is how many bytes the processes have given to file systems.
func (ps Processes) written() (sum int64) {
	for _, pid := range ps {
		sum += numbers(pid, "io")["write_bytes"]
	}
	return sum
}

// numbers reads a file of a process with lines such as "VmRSS:  123 kB"; nil
// when it can't be read.
func numbers(pid int, file string) map[string]int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
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
