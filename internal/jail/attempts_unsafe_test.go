package jail

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempt is something a monitor that was taken over may try, or something that
// a sound one does.
type attempt struct {
	want string // the call that is denied, "" when none is
	arg  string // what the report shows of it
	run  func(files) error
}

func raw(nr uintptr, args ...uintptr) func(files) error {
	return func(files) error {
		var a [6]uintptr
		copy(a[:], args)
		_, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		return fmt.Errorf("the call was made: %w", errno)
	}
}

// name is memory that the calls below may point to.
var name = [16]byte{'/', 'e', 't', 'c', '/', 'p', 'a', 's', 's', 'w', 'd'}

// SAFETY: name is a variable of the package: it stays where it is.
var nameAt = uintptr(unsafe.Pointer(&name))

const atCwd = ^uintptr(99) // AT_FDCWD

var attempts = map[string]attempt{
	"open":         {"openat", "0xffffffffffffff9c", func(files) error { _, err := os.Open("/etc/passwd"); return err }},
	"old open":     {"open", "", raw(unix.SYS_OPEN, nameAt)},
	"openat2":      {"openat2", "", raw(unix.SYS_OPENAT2, atCwd, nameAt, nameAt, 24)},
	"stat":         {"newfstatat", "", raw(unix.SYS_NEWFSTATAT, atCwd, nameAt, nameAt)},
	"socket":       {"socket", "0x2, ", func(files) error { _, err := net.Dial("tcp", "127.0.0.1:1"); return err }},
	"unix socket":  {"socket", "0x1, ", raw(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM)},
	"execve":       {"execve", "", raw(unix.SYS_EXECVE, nameAt)},
	"execveat":     {"execveat", "", raw(unix.SYS_EXECVEAT, atCwd, nameAt)},
	"ptrace":       {"ptrace", "0x10, 0x1", raw(unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1)},
	"process_vm":   {"process_vm_readv", "", raw(unix.SYS_PROCESS_VM_READV, 1)},
	"mount":        {"mount", "", raw(unix.SYS_MOUNT, nameAt, nameAt)},
	"unshare":      {"unshare", "", raw(unix.SYS_UNSHARE, unix.CLONE_NEWUSER)},
	"setns":        {"setns", "", raw(unix.SYS_SETNS, 3)},
	"fork":         {"clone", "0x11", raw(unix.SYS_CLONE, uintptr(unix.SIGCHLD))},
	"clone3":       {"clone3", "", raw(unix.SYS_CLONE3, nameAt, 88)},
	"mmap code":    {"mmap", "", raw(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)},
	"make code":    {"mprotect", "0x7", raw(unix.SYS_MPROTECT, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC)},
	"pkey":         {"pkey_mprotect", "", raw(unix.SYS_PKEY_MPROTECT, 0, 4096, 7)},
	"kill":         {"kill", "0x1, 0x9", raw(unix.SYS_KILL, 1, 9)},
	"tgkill":       {"tgkill", "", raw(unix.SYS_TGKILL, 1<<22, 1<<22, 9)},
	"handler":      {"rt_sigaction", "0x1f", raw(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSYS))},
	"no_new_privs": {"prctl", "0x26", raw(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)},
	"listener":     {"seccomp", "", raw(unix.SYS_SECCOMP, 1, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)},
	"create vm":    {"ioctl", "KVM_CREATE_VM", raw(unix.SYS_IOCTL, 0, 0xae01)},
	"terminal":     {"ioctl", "TIOCSTI", raw(unix.SYS_IOCTL, 0, unix.TIOCSTI, nameAt)},
	"bpf":          {"bpf", "", raw(unix.SYS_BPF)},
	"io_uring":     {"io_uring_setup", "", raw(unix.SYS_IO_URING_SETUP, 1)},
	"keyctl":       {"keyctl", "", raw(unix.SYS_KEYCTL)},
	"memfd":        {"memfd_create", "", raw(unix.SYS_MEMFD_CREATE, nameAt)},
	"pidfd":        {"pidfd_open", "", raw(unix.SYS_PIDFD_OPEN, 1)},
	"setuid":       {"setuid", "", raw(unix.SYS_SETUID, 0)},
	"unknown":      {"system call 999", "", raw(999)},
	// The next ones are for a vCPU's thread only: others may.
	"vcpu read":      {"read", "", func(f files) error { _, err := syscall.Read(int(f.file.Fd()), make([]byte, 1)); return err }},
	"vcpu pwrite":    {"pwrite64", "", raw(unix.SYS_PWRITE64, 5, nameAt, 1)},
	"vcpu thread":    {"clone", "0xd0f00", raw(unix.SYS_CLONE, threadFlags)},
	"vcpu irqfd":     {"ioctl", "KVM_IRQFD", raw(unix.SYS_IOCTL, 5, 0x4020ae76)},
	"vcpu filter":    {"seccomp", "0x1, 0x0", raw(unix.SYS_SECCOMP, 1, 0)},
	"vcpu recvmsg":   {"recvmsg", "", raw(unix.SYS_RECVMSG, 5)},
	"vcpu fallocate": {"fallocate", "", raw(unix.SYS_FALLOCATE, 5)},
	"ordinary":       {"", "", ordinary},
	"nothing":        {"", "", func(files) error { return nil }},
}

func init() {
	for _, r := range savingRequests {
		attempts[r.name] = attempt{"ioctl", r.name, raw(unix.SYS_IOCTL, 0, uintptr(r.number))}
	}
}

// ordinary uses what Go's runtime and a monitor's thread need; what a vCPU's
// thread may not do, other goroutines do.
func ordinary(f files) error {
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	check := func(err error) {
		if err != nil {
			errs <- err
		}
	}
	for range 8 {
		wg.Go(func() { // threads, memory, timers
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			keep := make([][]byte, 0, 64)
			for range 64 {
				keep = append(keep, make([]byte, 256<<10))
				time.Sleep(time.Microsecond)
			}
			runtime.GC()
			runtime.KeepAlive(keep)
		})
	}
	wg.Go(func() {
		_, err := f.file.WriteAt([]byte("hello"), 4096)
		check(err)
		check(f.file.Sync())
		_, err = f.file.ReadAt(make([]byte, 5), 4096)
		check(err)
		check(unix.Fallocate(int(f.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
	})
	wg.Go(func() { // a socket through the poller, and io.Copy's splice
		c, err := net.FileConn(f.pair[0])
		check(err)
		_, err = c.Write([]byte("over there"))
		check(err)
		check(c.Close())
		check(f.pair[0].Close())
		_, err = io.Copy(f.file, f.pair[1])
		check(err)
	})
	for range 200 { // on the thread of the role
		keep := make([]byte, 1<<20)
		runtime.Gosched()
		runtime.KeepAlive(keep)
		if _, err := unix.Write(int(f.event.Fd()), []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			return err
		}
		time.Sleep(50 * time.Microsecond)
	}
	wg.Wait()
	func() {
		defer func() { _ = recover() }()
		panic("a panic that is recovered")
	}()
	select {
	case err := <-errs:
		return errors.Join(errors.New("ordinary work"), err)
	default:
		return nil
	}
}
