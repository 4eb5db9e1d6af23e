package microvm

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
)

// usage measures what a run costs. CPU time is this whole process's: vCPU,
// devices and runtime are its threads, and nothing else takes part in a run.
type usage struct{ cpu int64 }

func startUsage() usage { return usage{cpu: processCPU()} }

// record adds what the run cost to rec. Precondition: vm has run and is open,
// so that the guest's memory is still counted among the process's.
func (u usage) record(vm *vmm.VM, rec *workload.Recorder) {
	if rec == nil {
		return
	}
	stats := vm.Stats()
	private, err := privateMemory("/proc/self/smaps_rollup")
	rec.SetUsage(func(w *workload.Usage) {
		w.CPUNs += processCPU() - u.cpu
		w.Exits = stats.Exits
		if w.Memory == nil {
			w.Memory = map[string]int64{}
		}
		w.Memory["guest_rss"] = int64(stats.Resident)
		if err == nil { // a kernel without CONFIG_PROC_PAGE_MONITOR cannot tell
			w.Memory["vmm_private"] = max(0, private-int64(stats.Resident))
		}
	})
}

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
func privateMemory(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	var total int64
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		name, value, _ := strings.Cut(sc.Text(), ":")
		if name != "Private_Clean" && name != "Private_Dirty" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", path, err)
		}
		total += kib << 10
	}
	return total, sc.Err()
}
