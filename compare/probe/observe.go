package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/compare/isolation"
)

// Bounds of the walks: a walk that meets one says so.
const (
	maxFiles   = 20000
	maxPaths   = 200
	maxDevices = 512
	maxTime    = 10 * time.Second
)

func observe() isolation.Observation {
	status := readStatus()
	o := isolation.Observation{
		Schema:     isolation.Schema,
		Kernel:     isolation.KernelRelease(),
		UID:        os.Getuid(),
		Processes:  countProcesses(),
		Caps:       isolation.Caps{Effective: status["CapEff"], Bounding: status["CapBnd"]},
		NoNewPrivs: status["NoNewPrivs"] == "1",
		UIDMap:     readUIDMap(),
		Devices:    devices("/dev"),
		Network:    isolation.ReadNetwork("/proc"),
		Values:     isolation.ReadValues("/proc"),
	}
	o.BootID, _ = isolation.ReadBootID() // empty says that it could not be read
	o.Seccomp, _ = strconv.Atoi(status["Seccomp"])
	o.Writable = []isolation.Walk{writable("/proc"), writable("/sys")}
	return o
}

func readStatus() map[string]string {
	out := map[string]string{}
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			out[key] = strings.TrimSpace(value)
		}
	}
	return out
}

func readUIDMap() []string {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

func countProcesses() int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		if isNumber(e.Name()) {
			n++
		}
	}
	return n
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 31)
	return err == nil
}

// mayBeWritable tells files that somebody may write from those root can merely
// open: procfs lets CAP_DAC_OVERRIDE open /proc/cpuinfo for writing, and refuses
// the write. It asks stat(2) and not the directory, which does not know what is
// mounted on its entries: a masked file is the null device.
func mayBeWritable(e fs.DirEntry) bool {
	info, err := e.Info()
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o222 != 0
}

// writable opens every file below root that has a write bit for writing, and
// closes it. It follows no link, stays out of the directories of processes (a process may
// write its own) and out of debugfs and tracefs, whose files may act on open.
func writable(root string) isolation.Walk {
	w := isolation.Walk{Root: root}
	deadline := time.Now().Add(maxTime)
	// Errors below root are what the walk is about, not failures of it.
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if e.IsDir() && skipDir(root, path) {
			return fs.SkipDir
		}
		if !mayBeWritable(e) {
			return nil
		}
		if w.Files == maxFiles || time.Now().After(deadline) {
			w.Truncated = true
			return fs.SkipAll
		}
		w.Files++
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil
		}
		_ = unix.Close(fd)
		w.Writable++
		if len(w.Paths) < maxPaths {
			w.Paths = append(w.Paths, path)
		}
		return nil
	})
	return w
}

func skipDir(root, path string) bool {
	if path == "/sys/kernel/debug" || path == "/sys/kernel/tracing" {
		return true
	}
	return root == "/proc" && filepath.Dir(path) == root && isNumber(filepath.Base(path))
}

// Opening these for reading acts on the machine: a watchdog starts to count, a
// tape rewinds.
var actOnOpen = []string{"watchdog", "st", "nst", "ht", "nht"}

func actsOnOpen(name string) bool {
	for _, prefix := range actOnOpen {
		rest, ok := strings.CutPrefix(name, prefix)
		if ok && strings.Trim(rest, "0123456789alm") == "" {
			return true
		}
	}
	return false
}

// devices tries to open every device node below root for reading.
func devices(root string) []isolation.Device {
	var out []isolation.Device
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if len(out) == maxDevices {
			return fs.SkipAll
		}
		var st unix.Stat_t // see mayBeWritable: nodes may be mounted one by one
		if err := unix.Lstat(path, &st); err != nil {
			return nil
		}
		kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
		if kind == "" {
			return nil
		}
		d := isolation.Device{Path: path, Node: fmt.Sprintf("%s %d:%d", kind, unix.Major(st.Rdev), unix.Minor(st.Rdev))}
		if actsOnOpen(e.Name()) {
			d.Err = "not tried"
		} else if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
			d.Err = errnoName(err)
		} else {
			_ = unix.Close(fd)
		}
		out = append(out, d)
		return nil
	})
	return out
}
