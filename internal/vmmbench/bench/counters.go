package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/duplex-run/duplex/internal/vmmbench"
)

const debugfs = "/sys/kernel/debug"

// readCounters reads what KVM counts of the one machine there is: the directory
// PID-FD in debugfs (Linux Documentation/virt/kvm/api.rst calls them statistics;
// the names are those of arch/x86/kvm/x86.c).
func readCounters() (vmmbench.Counters, error) {
	var c vmmbench.Counters
	dirs, err := filepath.Glob(debugfs + "/kvm/*-*")
	if err != nil || len(dirs) != 1 {
		return c, fmt.Errorf("%d machines in %s/kvm, want 1", len(dirs), debugfs)
	}
	read := func(name string) (n int64) {
		text, rerr := os.ReadFile(filepath.Join(dirs[0], name))
		if rerr == nil {
			n, rerr = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		}
		if rerr != nil && err == nil {
			err = rerr
		}
		return n
	}
	mmio := read("mmio_exits")
	c.Exits = read("exits")
	c.User = mmio + read("io_exits")
	c.Kicks = read("insn_emulation") - mmio
	c.Halts = read("halt_exits")
	c.Inject = read("irq_injections")
	return c, err
}
