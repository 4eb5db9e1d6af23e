package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/duplex-run/duplex/internal/workload"
)

// Stats is what the groups say at this moment; what none of them counts is
// workload.Unknown.
func (s *Set) Stats() workload.Stats {
	out := workload.NoStats()
	if s == nil {
		return out
	}
	if g, ok := s.find(Memory); ok {
		out.Memory, out.MemoryLimit = g.memory()
	}
	if g, ok := s.find(Pids); ok {
		out.Pids, out.PidsLimit = number(g.dir, "pids.current"), number(g.dir, "pids.max")
	}
	for _, g := range s.groups {
		switch {
		case g.V2():
			if b, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat")); err == nil {
				out.CPUNs = keyed(string(b), "usage_usec") * 1000
			}
			out.BlockRead, out.BlockWritten = g.blocks()
		case strings.Contains(","+g.Name+",", ",cpuacct,"):
			out.CPUNs = number(g.dir, "cpuacct.usage")
		}
	}
	return out
}

// memory is what is in use, as docker counts it: without the part of the page
// cache that is the first to go.
func (g group) memory() (used, limit int64) {
	use, max, inactive := "memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"
	if g.V2() {
		use, max, inactive = "memory.current", "memory.max", "inactive_file"
	}
	used, limit = number(g.dir, use), number(g.dir, max)
	if b, err := os.ReadFile(filepath.Join(g.dir, "memory.stat")); err == nil && used > 0 {
		used -= min(used, keyed(string(b), inactive))
	}
	if limit > 1<<62 { // v1's word for none
		limit = workload.Unknown
	}
	return used, limit
}

// blocks adds io.stat up over all devices (cgroup-v2.rst).
func (g group) blocks() (read, written int64) {
	b, err := os.ReadFile(filepath.Join(g.dir, "io.stat"))
	if err != nil {
		return workload.Unknown, workload.Unknown
	}
	for _, field := range strings.Fields(string(b)) {
		key, value, _ := strings.Cut(field, "=")
		n, _ := strconv.ParseInt(value, 10, 64)
		switch key {
		case "rbytes":
			read += n
		case "wbytes":
			written += n
		}
	}
	return read, written
}

// number reads a file of one number; "max", and what cannot be read, is
// workload.Unknown.
func number(dir, name string) int64 {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return workload.Unknown
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return workload.Unknown
	}
	return n
}
