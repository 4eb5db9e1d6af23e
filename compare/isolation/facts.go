package isolation

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// HostFacts are what this process reads about the kernel it runs on, to hold an
// Observation against.
type HostFacts struct {
	Kernel  string  `json:"kernel"`
	BootID  string  `json:"boot_id"`
	Network Network `json:"network"`
	Values  Values  `json:"values"`
}

// ReadHost reads the facts of the kernel this process runs on.
func ReadHost() (HostFacts, error) {
	id, err := ReadBootID()
	if err != nil {
		return HostFacts{}, err
	}
	return HostFacts{Kernel: KernelRelease(), BootID: id, Network: ReadNetwork("/proc"), Values: ReadValues("/proc")}, nil
}

// ReadBootID reads the id the kernel drew when it booted.
func ReadBootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// KernelRelease returns uname's release.
func KernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// ReadValues reads Values below proc, normally "/proc"; what cannot be read
// stays zero.
func ReadValues(proc string) Values {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(proc, name))
		if err != nil {
			return ""
		}
		return string(b)
	}
	v := Values{
		BTime:    number(field(read("stat"), "btime", " ")),
		MemTotal: number(field(read("meminfo"), "MemTotal", ":")),
		CPUModel: field(read("cpuinfo"), "model name", ":"),
	}
	for line := range strings.Lines(read("self/mountinfo")) {
		if m := mountLine(line); m != "" && len(v.Mounts) < maxList {
			v.Mounts = append(v.Mounts, m)
		}
	}
	return v
}

// ReadNetwork reads Network below proc; what cannot be read stays zero.
func ReadNetwork(proc string) Network {
	var n Network
	n.Namespace, _ = os.Readlink(filepath.Join(proc, "self/ns/net"))
	devices, _ := os.ReadFile(filepath.Join(proc, "self/net/dev"))
	for line := range strings.Lines(string(devices)) {
		if name, _, ok := strings.Cut(line, ":"); ok && len(n.Interfaces) < maxList {
			n.Interfaces = append(n.Interfaces, strings.TrimSpace(name))
		}
	}
	slices.Sort(n.Interfaces)
	sockets, _ := os.ReadFile(filepath.Join(proc, "self/net/unix"))
	names := map[string]bool{}
	for line := range strings.Lines(string(sockets)) {
		if f := strings.Fields(line); len(f) == 8 && strings.HasPrefix(f[7], "@") {
			names[f[7]] = true
		}
	}
	n.Abstract = len(names)
	return n
}

// field returns what follows key and sep in the first line that starts so.
func field(text, key, sep string) string {
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(line, sep)
		if ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func number(s string) int64 {
	first, _, _ := strings.Cut(s, " ")
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// mountLine turns a line of proc_pid_mountinfo(5) into "major:minor fstype source".
func mountLine(line string) string {
	before, after, ok := strings.Cut(line, " - ")
	b, a := strings.Fields(before), strings.Fields(after)
	if !ok || len(b) < 3 || len(a) < 2 {
		return ""
	}
	return b[2] + " " + a[0] + " " + a[1]
}
