package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
)

func main() {
	mark(agentproto.MarkKernelUp)
	openReport()
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
	step("mount /dev, /proc and /sys")
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
	var saved *stage
	if root := parameter(string(line), agentproto.SnapshotKey); root != "" {
		if saved, err = untilRestored(root); err != nil {
			return err
		}
	}
	h, links, m, err := greet(parameter(string(line), agentproto.TransportKey), saved != nil)
	if err != nil {
		return err
	}
	if m.Type != agentproto.Run {
		return fmt.Errorf("expected start, got %s", m.Type)
	}
	return serve(h, links, m.Start, saved)
}

// greet opens the streams, says hello, and returns the host's first message.
func greet(transport string, restored bool) (*host, links, *agentproto.Message, error) {
	step("connect to the host")
	l, err := connect(transport)
	if err != nil {
		return nil, nil, nil, err
	}
	step("learn what to run")
	h := &host{control: l[agentproto.Control], gone: make(chan struct{})}
	hello := &agentproto.Message{Type: agentproto.Hello, Version: agentproto.Version, Restored: restored}
	if err := h.send(hello); err != nil {
		return nil, nil, nil, err
	}
	m, err := agentproto.ReadFromHost(h.control)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read start: %w", err)
	}
	return h, l, m, nil
}
