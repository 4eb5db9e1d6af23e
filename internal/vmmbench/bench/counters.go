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
	c.Kernel = read("insn_emulation") - mmio
	c.Halts = read("halt_exits")
	c.Inject = read("irq_injections")
	if err != nil {
		return c, err
	}
	c.Kicks, err = readKicks()
	c.Kernel -= c.Kicks
	return c, err
}

// tracing is where debugfs shows the kernel's tracing.
const tracing = debugfs + "/tracing"

// countKicks makes the kernel count notifications of virtqueues, which KVM has no
// statistics of: by a probe on the function that signals the eventfd behind one.
// (ioeventfd_write is called once for each queue of the device.) It writes
// no trace. It costs both monitors the same, some hundred instructions each time.
func countKicks() error {
	for _, w := range []struct{ file, text string }{
		{"tracing_on", "0"},
		{"kprobe_events", "p:vmmbench/kick eventfd_signal"},
		{"events/vmmbench/kick/enable", "1"},
	} {
		if err := os.WriteFile(filepath.Join(tracing, w.file), []byte(w.text), 0); err != nil {
			return fmt.Errorf("count notifications: %w", err)
		}
	}
	return nil
}

// readKicks reads the only probe's line: name, hits, misses.
func readKicks() (int64, error) {
	text, err := os.ReadFile(filepath.Join(tracing, "kprobe_profile"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) == 0 {
		return 0, nil // nobody asked for it
	}
	if len(fields) != 3 {
		return 0, fmt.Errorf("the kernel's probes are %q", text)
	}
	return strconv.ParseInt(fields[1], 10, 64)
}
