package seccomp

import "golang.org/x/sys/unix"

// DefaultCaps are the capabilities docker leaves a container, and those that
// Default was compiled for (moby, daemon/pkg/oci/caps/defaults.go).
var DefaultCaps = []struct {
	Name   string
	Number uint
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

// DefaultCapSet returns DefaultCaps as a set of bits.
func DefaultCapSet() uint64 {
	var set uint64
	for _, c := range DefaultCaps {
		set |= 1 << c.Number
	}
	return set
}
