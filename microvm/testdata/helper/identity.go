package main

import (
	"bytes"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// identity is what makes a machine one of its own.
type identity struct {
	BootID, MachineID, Hostname string
	Random                      []byte   // 32 bytes of getrandom(2)
	Canary                      []byte   // AT_RANDOM: the kernel drew it at execve
	MACs                        []string // without loopback
	TimeNs                      int64    // CLOCK_REALTIME
	MonotonicNs                 int64
}

func whoAmI() identity {
	id := identity{Random: make([]byte, 32), TimeNs: time.Now().UnixNano()}
	check(unix.Getrandom(id.Random, 0))
	id.BootID, id.MachineID = line("/proc/sys/kernel/random/boot_id"), line("/etc/machine-id")
	auxv, err := os.ReadFile("/proc/self/auxv")
	check(auxv, err)
	id.Canary = atRandom(auxv)
	id.Hostname, err = os.Hostname()
	check(0, err)
	var ts unix.Timespec
	check(0, unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts))
	id.MonotonicNs = ts.Nano()
	interfaces, err := net.Interfaces()
	check(0, err)
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback == 0 {
			id.MACs = append(id.MACs, i.HardwareAddr.String())
		}
	}
	return id
}

func line(path string) string {
	text, err := os.ReadFile(path)
	check(0, err)
	return string(bytes.TrimSpace(text))
}
