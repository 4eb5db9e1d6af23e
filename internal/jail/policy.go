package jail

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/seccomp"
)

// Role is what a thread of the monitor does.
type Role uint16

// The roles; they are the data of the filters' traps, and so not 0.
const (
	Monitor Role = iota + 1
	VCPU
)

func (r Role) String() string {
	switch r {
	case Monitor:
		return "monitor"
	case VCPU:
		return "vcpu"
	}
	return fmt.Sprintf("role %d", uint16(r))
}

// Policy is what differs between machines.
type Policy struct {
	// Shares: the machine has directories of the host, so that the monitor has to
	// name files.
	Shares bool
	// Saves: the monitor reads all of the machine's state from KVM.
	Saves bool
	// SelfPID is the monitor's process id in its own namespace, the only
	// one it may send signals to.
	SelfPID int
}

// everyThread is what Go's runtime needs wherever it runs.
var everyThread = []string{
	"futex", "nanosleep", "clock_nanosleep", "sched_yield", "restart_syscall",
	"rt_sigreturn", "rt_sigprocmask", "sigaltstack", "gettid", "getpid",
	"madvise", "munmap", "clock_gettime", "getrandom", "exit", "exit_group",
	"write", // eventfds: interrupts, and the poller's wake-up; a panic's text
	"writev",
	"epoll_pwait", // whoever starts a garbage collection looks at the poller once
}

// monitorOnly works on descriptors that are open.
var monitorOnly = []string{
	"epoll_create1", "epoll_ctl", "eventfd2",
	"read", "readv", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "lseek",
	"fsync", "fdatasync", "sync_file_range", "fallocate", "ftruncate", "flock",
	"fstat", "close", "dup", "dup3",
	"recvfrom", "recvmsg", "recvmmsg", "sendmsg", "sendmmsg", "sendto", "accept4", "shutdown",
	"getsockname", "getpeername", "getsockopt",
	"pipe2", "splice", "sendfile", "copy_file_range", // Go's io.Copy
	"sched_getaffinity", "mincore", "cachestat", "uname", "getuid", "geteuid",
}

// shareCalls name files. All of them take a directory's descriptor; Landlock and
// the empty root say what a name can lead to.
var shareCalls = []string{
	"openat", "openat2", "newfstatat", "statx", "fstatfs", "statfs", "getdents64",
	"mkdirat", "mknodat", "linkat", "symlinkat", "readlinkat", "unlinkat", "renameat", "renameat2",
	"fchownat", "fchown", "fchmodat", "fchmodat2", "fchmod", "utimensat", "faccessat", "faccessat2",
	"fgetxattr", "fsetxattr", "flistxattr", "fremovexattr",
	"getxattr", "setxattr", "listxattr", "removexattr",
	"lgetxattr", "lsetxattr", "llistxattr", "lremovexattr",
	"getxattrat", "setxattrat", "listxattrat", "removexattrat",
	"truncate", "syncfs", "umask", "fchdir", "setfsuid", "setfsgid", "setresuid", "setresgid",
}

// threadFlags are those of Go's runtime when it starts a thread (cloneFlags in
// runtime/os_linux.go, and clone in sys_linux_amd64.s).
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND |
	unix.CLONE_SYSVSEM | unix.CLONE_THREAD | unix.CLONE_SETTLS

// prSetVMA is PR_SET_VMA, with which the runtime names its mappings.
const prSetVMA = 0x53564d41

// profile is the allowlist of a role.
func (p Policy) profile(role Role) *specs.LinuxSeccomp {
	data := uint(role)
	out := &specs.LinuxSeccomp{
		DefaultAction: specs.ActTrap, DefaultErrnoRet: &data,
		Architectures: []specs.Arch{specs.ArchX86_64},
	}
	allow := func(args []specs.LinuxSeccompArg, names ...string) {
		out.Syscalls = append(out.Syscalls, specs.LinuxSyscall{Names: names, Action: specs.ActAllow, Args: args})
	}
	is := func(index uint, value uint64) []specs.LinuxSeccompArg {
		return []specs.LinuxSeccompArg{{Index: index, Value: value, Op: specs.OpEqualTo}}
	}
	notExecutable := []specs.LinuxSeccompArg{{Index: 2, Value: unix.PROT_EXEC, ValueTwo: 0, Op: specs.OpMaskedEqual}}
	allow(nil, everyThread...)
	allow(notExecutable, "mmap", "mprotect")
	allow(is(0, prSetVMA), "prctl")
	allow(is(0, unix.RUSAGE_SELF), "getrusage") // page faults so far, at each mark
	allow(is(0, uint64(p.SelfPID)), "tgkill")
	requests := vcpuRequests
	if role == Monitor {
		requests = slices.Concat(vcpuRequests, monitorRequests)
		if p.Saves {
			requests = slices.Concat(requests, savingRequests)
		}
		allow(nil, monitorOnly...)
		allow(is(0, threadFlags), "clone")
		// A thread becomes a vCPU's by one more filter, without a listener.
		allow(append(is(0, unix.SECCOMP_SET_MODE_FILTER), is(1, 0)...), "seccomp")
		for _, cmd := range []uint64{unix.F_GETFL, unix.F_SETFL, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_OFD_SETLK} {
			allow(is(1, cmd), "fcntl")
		}
		for _, level := range []uint64{unix.SOL_SOCKET, unix.IPPROTO_TCP} {
			allow(is(1, level), "setsockopt")
		}
		if p.Shares {
			allow(nil, shareCalls...)
		}
	}
	for _, r := range requests {
		allow(is(1, uint64(r.number)), "ioctl")
	}
	return out
}

// Filter compiles the allowlist of a role.
func (p Policy) Filter(role Role) ([]unix.SockFilter, error) {
	return seccomp.CompileExact(p.profile(role))
}
