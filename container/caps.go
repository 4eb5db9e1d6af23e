package container

import "golang.org/x/sys/unix"

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
