package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/compare/isolation"
)

// attempt is one thing to try. try returns nil when it worked; passed are the
// errnos that only a caller who passed the permission checks gets to see.
type attempt struct {
	name   string
	try    func() error
	passed []unix.Errno
}

func attempts() []attempt {
	return []attempt{
		{name: "mount", try: tryMount},
		{name: "user namespace", try: tryUserNamespace},
		{name: "ptrace", try: tryPtrace},
		// The capability is checked before the file is read; bytes that are no
		// ELF file get ENOEXEC (finit_module(2)), or a signature error.
		{name: "load module", try: tryModule, passed: []unix.Errno{unix.ENOEXEC, unix.EBADMSG, unix.EKEYREJECTED, unix.ENOKEY}},
		{name: "bpf", try: tryBPF},
		{name: "io_uring", try: tryIOURing},
		{name: "raw socket", try: tryRawSocket},
		{name: "mknod", try: tryMknod},
		// A time before the boot is refused with EINVAL after the permission
		// check, since Linux 4.3 (clock_settime(2)): nothing is ever set.
		{name: "set clock", try: trySetClock, passed: []unix.Errno{unix.EINVAL}},
		{name: "read dmesg", try: tryDmesg},
	}
}

// stepError says that an attempt could not even be made.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return fmt.Sprintf("%s: %v", e.step, e.err) }

// The exit status of a child: 0 when the attempt worked, exitErrno + errno (at
// most 133 on Linux) when the kernel answered with one, exitStep when the
// attempt could not be made. Anything else is a crash of the Go runtime (2),
// such as a filter that sends SIGSYS instead of an errno.
const (
	exitErrno = 100
	exitStep  = 255
)

// runAttempt is the child: it makes one attempt and exits with its errno.
func runAttempt(name string) int {
	for _, a := range attempts() {
		if a.name != name {
			continue
		}
		err := a.try()
		var step *stepError
		var errno unix.Errno
		switch {
		case err == nil:
			return 0
		case errors.As(err, &step):
			fmt.Print(step)
			return exitStep
		case errors.As(err, &errno):
			return exitErrno + int(errno)
		}
		fmt.Print(err)
		return exitStep
	}
	return 0 // an unknown name is the child of tryUserNamespace and tryPtrace
}

// tryAll makes every attempt in a child of its own.
func tryAll() []isolation.Attempt {
	var out []isolation.Attempt
	for _, a := range attempts() {
		out = append(out, a.inChild())
	}
	return out
}

func (a attempt) inChild() isolation.Attempt {
	r := isolation.Attempt{Name: a.name}
	said, err := self(a.name).Output()
	var exit *exec.ExitError
	switch {
	case err == nil:
		r.Allowed = true
	case !errors.As(err, &exit):
		r.Step = "start a child: " + err.Error()
	case exit.ExitCode() == exitStep:
		r.Step = string(said)
	case exit.ExitCode() < 0:
		status, _ := exit.Sys().(syscall.WaitStatus)
		r.Errno = unix.SignalName(status.Signal())
	case exit.ExitCode() <= exitErrno:
		r.Errno = "crashed"
	default:
		errno := unix.Errno(exit.ExitCode() - exitErrno)
		r.Errno = errnoName(errno)
		for _, p := range a.passed {
			r.Allowed = r.Allowed || errno == p
		}
	}
	return r
}

func self(arg string) *exec.Cmd {
	path := "/proc/self/exe"
	if _, err := os.Readlink(path); err != nil {
		path = os.Args[0]
	}
	return exec.Command(path, arg)
}

func errnoName(err error) string {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", int(errno))
}

// scratch makes a directory somewhere, also under a read-only root.
func scratch() (string, error) {
	var err error
	for _, dir := range []string{"/", "/tmp", "/dev/shm", "/run"} {
		var path string
		if path, err = os.MkdirTemp(dir, ".duplex-probe-"); err == nil {
			return path, nil
		}
	}
	return "", &stepError{"make a directory", err}
}

func tryMount() error {
	dir, err := scratch()
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(dir) }()
	if err := unix.Mount("duplex-probe", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=4k"); err != nil {
		return err
	}
	return unix.Unmount(dir, unix.MNT_DETACH)
}

// tryUserNamespace asks clone(2) for a child in a new user namespace:
// unshare(2) is refused to a process with threads, and every Go program has them.
func tryUserNamespace() error {
	c := self("")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	return c.Run()
}

// tryPtrace seizes a child of its own and kills it.
func tryPtrace() error {
	// A ptracer is a thread, not a process (ptrace(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, w, err := os.Pipe()
	if err != nil {
		return &stepError{"make a pipe", err}
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	c := self("")
	if err := c.Start(); err != nil {
		return &stepError{"start a child", err}
	}
	// Not yet waited for, so its number stays its own even if it has ended;
	// a child that has ended cannot be seized (EPERM), hence the stop.
	if err := c.Process.Signal(unix.SIGSTOP); err != nil {
		return &stepError{"stop the child", err}
	}
	err = unix.PtraceSeize(c.Process.Pid)
	_ = c.Process.Kill()
	_, _ = c.Process.Wait()
	return err
}

func tryModule() error {
	fd, err := unix.MemfdCreate("duplex-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return &stepError{"memfd_create", err}
	}
	f := os.NewFile(uintptr(fd), "garbage")
	defer func() { _ = f.Close() }()
	if _, err := f.Write([]byte("no module")); err != nil {
		return &stepError{"write to the memfd", err}
	}
	return unix.FinitModule(fd, "", 0)
}

func tryRawSocket() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func tryMknod() error {
	dir, err := scratch()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
}

func trySetClock() error {
	return unix.ClockSettime(unix.CLOCK_REALTIME, &unix.Timespec{})
}

func tryDmesg() error {
	_, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 4096))
	return err
}
