package main

import (
	"bytes"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
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
	// Generations is how often the machine was told that its generation id changed:
	// interrupts of the generic event device's second line.
	Generations int
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
	interrupts, err := os.ReadFile("/proc/interrupts")
	check(0, err)
	id.Generations = count(string(interrupts), "3-edge")
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

// count adds up an interrupt's line in /proc/interrupts: "25: N... IO-APIC 3-edge NAME".
func count(interrupts, line string) (n int) {
	for l := range strings.Lines(interrupts) {
		fields := strings.Fields(l)
		if !slices.Contains(fields, line) {
			continue
		}
		for _, f := range fields[1:] {
			perCPU, err := strconv.Atoi(f)
			if err != nil {
				break
			}
			n += perCPU
		}
	}
	return n
}
