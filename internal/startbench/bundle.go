package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	profile "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/container/seccomp"
	"github.com/duplex-run/duplex/internal/tinyelf"
	"github.com/duplex-run/duplex/oci"
)

// dockerMasks and dockerReadOnly are moby's (daemon/pkg/oci/defaults.go).
var (
	dockerMasks = []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap"}
	dockerReadOnly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// writeBundle makes a bundle of docker's defaults in dir, and the seccomp
// profile compiled for bubblewrap, which takes it like that.
func writeBundle(dir string, withSeccomp bool) error {
	rootfs := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			return err
		}
	}
	program := tinyelf.Program(0x400000, tinyelf.Exit(0))
	if err := os.WriteFile(filepath.Join(rootfs, "bin/true"), program, 0o755); err != nil {
		return err
	}
	spec, err := dockerSpec(withSeccomp)
	if err != nil {
		return err
	}
	config, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644),
		os.WriteFile(filepath.Join(dir, "profile.bpf"), seccomp.Default(), 0o644))
}

// dockerSpec is the configuration that docker makes for `docker run IMAGE true`
// on a host of this kind, without a network.
func dockerSpec(withSeccomp bool) (*specs.Spec, error) {
	s := oci.Example()
	var caps []string
	for _, c := range seccomp.DefaultCaps {
		caps = append(caps, c.Name)
	}
	s.Version = "1.0.2" // Debian 12's runc and crun know no newer one
	s.Process = &specs.Process{
		Args: []string{"/bin/true"}, Cwd: "/", Env: s.Process.Env[:1],
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
	}
	s.Root = &specs.Root{Path: "rootfs"}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = dockerMasks, dockerReadOnly
	s.Linux.Resources.Devices = deviceRules()
	if !withSeccomp {
		return s, nil
	}
	p, err := profile.GetDefaultProfile(s)
	if err != nil {
		return nil, fmt.Errorf("resolve docker's seccomp profile: %w", err)
	}
	s.Linux.Seccomp = p
	return s, nil
}

// deviceRules are docker's: everything may be made, the usual ones opened.
func deviceRules() []specs.LinuxDeviceCgroup {
	n := func(v int64) *int64 { return &v }
	rules := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "b", Access: "m"},
	}
	for _, d := range [][2]int64{{1, 5}, {1, 3}, {1, 9}, {1, 8}, {5, 0}, {5, 1}} {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: n(d[0]), Minor: n(d[1]), Access: "rwm"})
	}
	return rules
}
