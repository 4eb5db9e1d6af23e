package clones

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Memory is what processes have in the host's memory, in bytes (smaps_rollup in
// proc_pid_smaps(5)).
type Memory struct {
	// Unique is mapped by one process only (Private_Clean and Private_Dirty): what
	// would be free without it.
	Unique int64 `json:"unique"`
	// PSS counts a page that n processes map as an n-th of a page to each.
	PSS int64 `json:"pss"`
	// Anonymous belongs to no file: heaps, and those pages of the guest's memory that
	// the guest has written to.
	Anonymous int64 `json:"anonymous"`
	Swap      int64 `json:"swap"`
}

func (m *Memory) add(o Memory) {
	m.Unique += o.Unique
	m.PSS += o.PSS
	m.Anonymous += o.Anonymous
	m.Swap += o.Swap
}

// parseRollup reads a /proc/PID/smaps_rollup.
func parseRollup(text []byte) (Memory, error) {
	var m Memory
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return m, fmt.Errorf("parse %q: %w", lines.Text(), err)
		}
		n <<= 10
		switch f[0] {
		case "Private_Clean:", "Private_Dirty:":
			m.Unique += n
		case "Pss:":
			m.PSS += n
		case "Anonymous:":
			m.Anonymous += n
		case "Swap:":
			m.Swap += n
		}
	}
	return m, lines.Err()
}

// memoryOf adds up a process and those it has started.
func memoryOf(pid int) (Memory, error) {
	var m Memory
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err == nil {
		m, err = parseRollup(text)
	}
	if err != nil {
		return m, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	children, err := childrenOf(pid)
	if err != nil {
		return m, err
	}
	for _, c := range children {
		o, err := memoryOf(c)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			return m, err
		}
		m.add(o)
	}
	return m, nil
}

// childrenOf lists the processes that threads of pid have started (proc_tid_children(5)).
func childrenOf(pid int) ([]int, error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, err
	}
	var out []int
	for _, t := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if err != nil {
			continue // the thread has ended
		}
		for f := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(f)
			if err != nil {
				return nil, fmt.Errorf("parse the children of process %d: %w", pid, err)
			}
			out = append(out, child)
		}
	}
	return out, nil
}

// available is MemAvailable of /proc/meminfo, in bytes.
func available() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemAvailable:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}
