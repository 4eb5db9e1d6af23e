package microvm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
)

// usage measures what a run costs: CPU time of this process, and of the
// monitor's when it has one of its own.
type usage struct{ cpu int64 }

func startUsage() usage { return usage{cpu: processCPU()} }

// record adds what the run cost to rec.
func (u usage) record(stats vmm.Stats, c cost, rec *workload.Recorder) {
	rec.SetUsage(func(w *workload.Usage) {
		w.CPUNs += processCPU() - u.cpu + c.cpu
		w.Exits = stats.Exits
		w.Bytes = map[string]int64{
			"kernel": int64(stats.KernelBytes), "initrd": int64(stats.InitrdBytes), "disk_read": int64(stats.DiskBytes),
		}
		if w.Memory == nil {
			w.Memory = map[string]int64{}
		}
		w.Memory["guest_rss"] = int64(stats.Resident)
		if c.private > 0 {
			w.Memory["vmm_private"] = c.private
		}
	})
}

// ownMemory is the private memory of this process without the guest's resident
// bytes, 0 where the kernel cannot tell (without CONFIG_PROC_PAGE_MONITOR).
// Precondition: the VM is open, so that the guest's memory is still counted.
func ownMemory(resident int64) int64 {
	f, err := rollup()
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	private, err := privateMemory(f)
	if err != nil {
		return 0
	}
	return max(0, private-resident)
}

// rollup opens the summary of this process's memory. A monitor has opened it
// before its jail took the file system away.
var rollup = func() (*os.File, error) { return os.Open("/proc/self/smaps_rollup") }

// processCPU is the user and system time of all threads, in nanoseconds.
func processCPU() int64 {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0 // cannot fail for RUSAGE_SELF
	}
	return ru.Utime.Nano() + ru.Stime.Nano()
}

// privateMemory adds up the private pages of a process, in bytes, from its
// smaps_rollup (proc(5)).
func privateMemory(rollup io.Reader) (int64, error) {
	var total int64
	sc := bufio.NewScanner(rollup)
	for sc.Scan() {
		name, value, _ := strings.Cut(sc.Text(), ":")
		if name != "Private_Clean" && name != "Private_Dirty" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read smaps_rollup: %w", err)
		}
		total += kib << 10
	}
	return total, sc.Err()
}
