package container

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// defaultCaps are the capabilities docker leaves a container
// (moby/oci/caps/defaults.go).
var defaultCaps = []struct {
	name   string
	number uint
}{
	{"CAP_CHOWN", unix.CAP_CHOWN},
	{"CAP_DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE},
	{"CAP_FSETID", unix.CAP_FSETID},
	{"CAP_FOWNER", unix.CAP_FOWNER},
	{"CAP_MKNOD", unix.CAP_MKNOD},
	{"CAP_NET_RAW", unix.CAP_NET_RAW},
	{"CAP_SETGID", unix.CAP_SETGID},
	{"CAP_SETUID", unix.CAP_SETUID},
	{"CAP_SETFCAP", unix.CAP_SETFCAP},
	{"CAP_SETPCAP", unix.CAP_SETPCAP},
	{"CAP_NET_BIND_SERVICE", unix.CAP_NET_BIND_SERVICE},
	{"CAP_SYS_CHROOT", unix.CAP_SYS_CHROOT},
	{"CAP_KILL", unix.CAP_KILL},
	{"CAP_AUDIT_WRITE", unix.CAP_AUDIT_WRITE},
}

func defaultCapSet() uint64 {
	var set uint64
	for _, c := range defaultCaps {
		set |= 1 << c.number
	}
	return set
}

func defaultCapNames() []string {
	var names []string
	for _, c := range defaultCaps {
		names = append(names, c.name)
	}
	return names
}

// dropBounding takes all but keep out of the calling thread's bounding set.
func dropBounding(keep uint64) error {
	for c := uint(0); c < 64; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // the kernel has no capability c, nor any after it
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	return nil
}

// setCaps gives the calling thread set, as far as it has it now, as permitted
// and effective capabilities and none as inheritable or ambient ones.
func setCaps(set uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	for i := range data {
		word := uint32(set >> (32 * i))
		data[i].Permitted &= word
		data[i].Effective = data[i].Permitted
		data[i].Inheritable = 0 // the kernel clears the ambient set with it
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
