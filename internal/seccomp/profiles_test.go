package seccomp

import (
	"fmt"
	"testing"

	profile "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var allArches = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}

// referenceProfiles are those that libseccomp has compiled as well: docker's for
// several sets of capabilities, and small ones for each thing a profile can say.
func referenceProfiles(t *testing.T) map[string]*specs.LinuxSeccomp {
	t.Helper()
	out := map[string]*specs.LinuxSeccomp{}
	for name, caps := range map[string][]string{
		"docker":           {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"},
		"docker-none":      nil,
		"docker-admin":     {"CAP_SYS_ADMIN"},
		"docker-observers": {"CAP_SYS_PTRACE", "CAP_PERFMON", "CAP_BPF", "CAP_SYSLOG", "CAP_DAC_READ_SEARCH"},
		"docker-machine":   {"CAP_SYS_BOOT", "CAP_SYS_MODULE", "CAP_SYS_PACCT", "CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_SYS_NICE"},
	} {
		p, err := profile.GetDefaultProfile(&specs.Spec{
			Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}},
		})
		if err != nil {
			t.Fatal(err)
		}
		out[name] = p
	}
	for _, op := range []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan,
		specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpMaskedEqual} {
		out["op-"+string(op)] = operator(op)
	}
	for _, a := range []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess,
		specs.ActKillThread, specs.ActLog, specs.ActNotify, specs.ActTrace, specs.ActTrap} {
		out["act-"+string(a)] = answers(a)
		if a != specs.ActNotify { // libseccomp takes it for no default
			out["default-"+string(a)] = &specs.LinuxSeccomp{DefaultAction: a, Architectures: allArches,
				Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "futex", "reboot"}, Action: other(a)}}}
		}
	}
	for i, a := range [][]specs.Arch{{specs.ArchX86_64}, {specs.ArchX86}, {specs.ArchX86_64, specs.ArchX86}, {specs.ArchX86_64, specs.ArchX32}} {
		out[fmt.Sprintf("arch-%d", i)] = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: a, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read", "write", "execve", "ioctl"}, Action: specs.ActAllow},
			{Names: []string{"personality"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Value: 8, Op: specs.OpEqualTo}}},
		}}
	}
	out["conditions"] = conditions()
	out["multiplexed"] = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: allArches, Syscalls: []specs.LinuxSyscall{
		{Names: multiplexedNames(), Action: specs.ActErrno},
	}}
	return out
}

func other(a specs.LinuxSeccompAction) specs.LinuxSeccompAction {
	if a == specs.ActAllow {
		return specs.ActErrno
	}
	return specs.ActAllow
}

// operator compares with op in both halves of an argument, in each argument.
func operator(op specs.LinuxSeccompOperator) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: allArches}
	for i, name := range []string{"mount", "swapon", "mremap", "prctl", "clone", "futex"} {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: uint(i), Value: 0x8000_0001, ValueTwo: 0x8000_0000, Op: op}}})
	}
	for i, v := range []uint64{0, 1, 0xffff_ffff} {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{[]string{"reboot", "acct", "iopl"}[i]}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: v, ValueTwo: 0, Op: op}}})
	}
	// Values of more than 32 bits, in calls that 32-bit x86 does not have.
	for i, v := range []uint64{1 << 32, 0x1_8000_0001, 1 << 63, 1<<64 - 1} {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{[]string{"arch_prctl", "newfstatat", "semtimedop", "shmat"}[i]}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: uint(i), Value: v, ValueTwo: v & (v - 1), Op: op}}})
	}
	return p
}

// answers has rules of action a: alone, with an argument, and with an errno.
func answers(a specs.LinuxSeccompAction) *specs.LinuxSeccomp {
	def := specs.ActErrno
	enosys, largest := uint(unix.ENOSYS), uint(4094) // libseccomp takes no 4095
	if a != specs.ActErrno && a != specs.ActTrace {
		enosys, largest = 0, 0
	}
	return &specs.LinuxSeccomp{DefaultAction: def, DefaultErrnoRet: new(uint), Architectures: allArches, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"read", "write", "openat"}, Action: a},
		{Names: []string{"mkdir"}, Action: a, ErrnoRet: &enosys},
		{Names: []string{"rmdir"}, Action: a, ErrnoRet: &largest},
		{Names: []string{"unlink"}, Action: a, Args: []specs.LinuxSeccompArg{{Index: 1, Value: 3, Op: specs.OpEqualTo}}},
	}}
}

// conditions has rules of several conditions, and several rules for one call.
func conditions() *specs.LinuxSeccomp {
	arg := func(index uint, op specs.LinuxSeccompOperator, value, two uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Op: op, Value: value, ValueTwo: two}
	}
	allow := func(name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: args}
	}
	return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: allArches, Syscalls: []specs.LinuxSyscall{
		allow("mount", arg(0, specs.OpEqualTo, 1, 0), arg(3, specs.OpMaskedEqual, 0xf0, 0x10)),
		allow("mount", arg(0, specs.OpEqualTo, 2, 0)),
		allow("prctl", arg(4, specs.OpGreaterThan, 5, 0), arg(0, specs.OpLessThan, 9, 0), arg(2, specs.OpNotEqual, 7, 0)),
		// Both of one argument: alternatives, as in runc and crun.
		allow("ptrace", arg(0, specs.OpEqualTo, 1, 0), arg(0, specs.OpEqualTo, 4, 0)),
		allow("fcntl", arg(1, specs.OpGreaterEqual, 10, 0), arg(1, specs.OpLessEqual, 12, 0), arg(2, specs.OpEqualTo, 1, 0)),
		// A rule without conditions decides, wherever it stands.
		allow("ioctl", arg(1, specs.OpEqualTo, 0x5413, 0)),
		allow("ioctl"),
		allow("kill"),
		allow("kill", arg(1, specs.OpEqualTo, 9, 0)),
		// A rule of the default action says nothing.
		{Names: []string{"socket"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{arg(0, specs.OpEqualTo, 40, 0)}},
		allow("socket", arg(0, specs.OpLessEqual, 40, 0)),
	}}
}

// multiplexedNames are calls that 32-bit x86 has twice: as calls of their own, and
// by way of socketcall and ipc.
func multiplexedNames() []string {
	return []string{"socket", "bind", "accept4", "sendmsg", "getsockopt", "semget", "semctl", "msgget", "shmat", "shmctl"}
}
