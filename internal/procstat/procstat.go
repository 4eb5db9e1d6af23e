package procstat

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// userHZ is the unit of times in /proc/PID/stat, the same on every architecture
// that has a choice (proc(5), USER_HZ).
const userHZ = 100

// Usage is what a process uses.
type Usage struct {
	Parent   int
	CPUNs    int64 // of all its threads, in nanoseconds
	Reaped   int64 // the same of the children it has waited for, and theirs
	Threads  int64
	Resident int64 // bytes
}

// Of reads the usage of a process; the error is os.ErrNotExist when there is none.
func Of(pid int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	return parse(stat)
}

// parse reads a line of /proc/PID/stat (proc(5)).
func parse(stat []byte) (Usage, error) {
	end := bytes.LastIndexByte(stat, ')') // of the name, which may hold anything
	fields := bytes.Fields(stat[end+1:])
	const state, ppid, utime, stime, cutime, cstime, threads, rss = 3, 4, 14, 15, 16, 17, 20, 24
	if len(fields) <= rss-state {
		return Usage{}, errors.New("/proc/PID/stat is cut short")
	}
	var n [7]int64
	for i, f := range []int{utime, stime, cutime, cstime, threads, rss, ppid} {
		var err error
		if n[i], err = strconv.ParseInt(string(fields[f-state]), 10, 64); err != nil {
			return Usage{}, fmt.Errorf("/proc/PID/stat: %w", err)
		}
	}
	const tick = 1e9 / userHZ
	return Usage{Parent: int(n[6]), CPUNs: (n[0] + n[1]) * tick, Reaped: (n[2] + n[3]) * tick, Threads: n[4], Resident: n[5] * int64(os.Getpagesize())}, nil
}

// Threads counts the threads of all processes but init and the kernel's own.
func Threads() (n int64) {
	const init, kthreadd = 1, 2 // kernel threads are kthreadd's children
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == init {
			continue
		}
		if u, err := Of(pid); err == nil && u.Parent != kthreadd && u.Parent != 0 { // else it has just ended
			n += u.Threads
		}
	}
	return n
}

// Storage is what a process, with the threads and children that it has waited for,
// has had read from and written to storage, in bytes: not what was in memory
// already. Another user's is not told, nor that of a process with more rights.
func Storage(pid int) (read, written int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, 0, err
	}
	return parseStorage(b)
}

// parseStorage reads /proc/PID/io (proc_pid_io(5)).
func parseStorage(b []byte) (read, written int64, err error) {
	found := 0
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		to := map[string]*int64{"read_bytes": &read, "write_bytes": &written}[name]
		if to == nil {
			continue
		}
		found++
		if *to, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64); err != nil {
			return 0, 0, fmt.Errorf("/proc/PID/io: %w", err)
		}
	}
	if found != 2 {
		return 0, 0, errors.New("/proc/PID/io is cut short")
	}
	return read, written, nil
}

// maxProcesses bounds a Tree.
const maxProcesses = 1 << 16

// Tree lists processes and all their descendants that are alive, as far as the
// kernel tells (CONFIG_PROC_CHILDREN).
func Tree(roots ...int) []int {
	seen := map[int]bool{}
	list := append([]int(nil), roots...)
	for i := 0; i < len(list) && i < maxProcesses; i++ {
		if seen[list[i]] {
			continue
		}
		seen[list[i]] = true
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", list[i]))
		if err != nil {
			continue // it has ended
		}
		for _, t := range tasks {
			children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", list[i], t.Name()))
			for _, c := range strings.Fields(string(children)) {
				if pid, err := strconv.Atoi(c); err == nil {
					list = append(list, pid)
				}
			}
		}
	}
	return list
}

// Network adds up what the interfaces of a process's network namespace but
// loopback received and sent, in bytes.
func Network(pid int) (in, out int64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = f.Close() }()
	return parseNetwork(f)
}

// parseNetwork reads /proc/net/dev (proc_pid_net(5)).
func parseNetwork(r io.Reader) (in, out int64, err error) {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		name, counts, ok := strings.Cut(sc.Text(), ":")
		f := strings.Fields(counts)
		if !ok || strings.TrimSpace(name) == "lo" || len(f) < 9 {
			continue
		}
		received, err1 := strconv.ParseInt(f[0], 10, 64)
		sent, err2 := strconv.ParseInt(f[8], 10, 64)
		if err1 != nil || err2 != nil {
			return 0, 0, fmt.Errorf("/proc/net/dev: line %q", sc.Text())
		}
		in, out = in+received, out+sent
	}
	return in, out, sc.Err()
}
