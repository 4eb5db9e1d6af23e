package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
)

func main() {
	mark(agentproto.MarkKernelUp)
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "duplex-agent: only useful as PID 1 of a duplex machine")
		os.Exit(125)
	}
	if err := machine(); err != nil {
		// The control stream may not exist yet: the console always does.
		fmt.Fprintln(os.Stderr, "duplex-agent:", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // PID 1 must not return: that is a kernel panic
}

// machine brings the machine up, runs one workload and returns when the host
// has what it needs.
func machine() error {
	if err := mountKernelFS(); err != nil {
		return err
	}
	if err := loadModules(modulesDir); err != nil {
		return err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	if parameter(string(line), agentproto.SnapshotKey) != "" {
		mark(agentproto.MarkSnapshot) // a restored machine goes on here
	}
	links, err := connect(parameter(string(line), agentproto.TransportKey))
	if err != nil {
		return err
	}
	h := &host{control: links[agentproto.Control], gone: make(chan struct{})}
	if err := h.send(&agentproto.Message{Type: agentproto.Hello, Version: agentproto.Version}); err != nil {
		return err
	}
	m, err := agentproto.ReadFromHost(h.control)
	if err != nil {
		return fmt.Errorf("read start: %w", err)
	}
	if m.Type != agentproto.Run {
		return fmt.Errorf("expected start, got %s", m.Type)
	}
	return serve(h, links, m.Start)
}
