package microvm

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/jail"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
)

// The tests here run guests of a few instructions, which any /dev/kvm can run, in
// the jail. What a whole Linux does in it, the TestGuest tests show: the
// jail is the default there.

const tinyBase = 1 << 20

var (
	// mov $0x3f8,%dx; mov $'!',%al; out %al,%dx; mov $'\n',%al; out %al,%dx
	say = []byte{0x66, 0xba, 0xf8, 0x03, 0xb0, '!', 0xee, 0xb0, '\n', 0xee}
	// mov $0x600,%dx; mov $0x34,%al; out %al,%dx: power off
	powerOff = []byte{0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee}
	spin     = []byte{0xeb, 0xfe}
)

// tiny is a machine that runs code.
func tiny(t testing.TB, code ...[]byte) Hardware {
	t.Helper()
	if _, err := os.Stat("/dev/kvm"); errors.Is(err, os.ErrNotExist) && os.Getenv("DUPLEX_IN_LAB") != "1" {
		t.Skip("no /dev/kvm; `make test` runs this test in the lab")
	}
	p := bytes.Join(append(code, spin), nil)
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Entry: tinyBase, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	ph := elf.Prog64{Type: uint32(elf.PT_LOAD), Off: 120, Paddr: tinyBase, Filesz: uint64(len(p)), Memsz: uint64(len(p))}
	var f bytes.Buffer
	for _, v := range []any{&h, &ph, p} {
		if err := binary.Write(&f, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, f.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return Hardware{Kernel: path, Memory: 4 << 20, CPUs: 1}
}

// The machine works in the jail as without, and says the same about itself.
func TestBootTiny(t *testing.T) {
	for name, noJail := range map[string]bool{"jail": false, "no jail": true} {
		t.Run(name, func(t *testing.T) {
			before := descriptors(t)
			serial := newWatched()
			var events []vmm.Event
			var took cost
			o := BootOptions{
				Serial: serial, NoJail: noJail,
				OnEvent: func(e vmm.Event, _ int64) { events = append(events, e) },
				onCost:  func(c cost) { took = c },
				Warn:    func(s string) { t.Log(s) },
			}
			exit, stats, err := Boot(t.Context(), tiny(t, say, say, powerOff), o)
			if err != nil || exit.Reason != vmm.PowerOff || serial.String() != "!\n!\n" {
				t.Errorf("%v, %v, serial port %q", exit, err, serial)
			}
			if fmt.Sprint(events) != fmt.Sprint([]vmm.Event{vmm.Created, vmm.Loaded, vmm.Entered}) {
				t.Errorf("events %v", events)
			}
			if stats.Exits["io"] < 3 || stats.Ports[0x3f8] != 4 || stats.Resident == 0 || took.private < 1<<20 || (took.cpu > 0) == noJail {
				t.Errorf("%+v, %+v", stats, took)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

// Cancelling ends a guest that does nothing of its own will.
func TestBootTinyCancel(t *testing.T) {
	serial := newWatched()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { <-serial.seen("!"); cancel() }()
	exit, _, err := Boot(ctx, tiny(t, say), BootOptions{Serial: serial})
	if err != nil || exit.Reason != vmm.Canceled {
		t.Errorf("%v, %v", exit, err)
	}
}

// attack makes the attempt that the kernel command line names, in a test's
// monitor: "attack=WHAT,ROLE".
func attack(s setup, role jail.Role) {
	_, what, ok := strings.Cut(s.Hardware.Cmdline, "attack=")
	what, of, _ := strings.Cut(what, ",")
	if !ok || of != role.String() {
		return
	}
	switch what {
	case "open":
		_, _ = os.Open("/etc/passwd")
	case "socket":
		_, _ = net.Dial("tcp", "192.0.2.1:80")
	case "execve":
		_ = unix.Exec("/bin/sh", []string{"sh"}, nil)
	case "ptrace":
		_ = unix.PtraceAttach(1)
	case "kvm":
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, 0, 0xae01, 0)
	case "save":
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, 0, 0x8400ae8e, 0)
	case "share":
		panic(useShare(firstFile + slices.Index(s.Files, numbered(fileShare, 0))))
	case "panic":
		panic("an error of ours")
	}
}

// A monitor that was taken over gets nothing, and its end is reported readably.
func TestMonitorAttacks(t *testing.T) {
	for what, call := range map[string]string{
		"open": "openat(", "socket": "socket(", "execve": "execve(", "ptrace": "ptrace(", "kvm": "KVM_CREATE_VM", "save": "KVM_GET_LAPIC",
	} {
		for _, role := range []jail.Role{jail.Monitor, jail.VCPU} {
			t.Run(what+"/"+role.String(), func(t *testing.T) {
				t.Parallel()
				h := tiny(t, powerOff)
				h.Cmdline = "attack=" + what + "," + role.String()
				_, _, err := Boot(t.Context(), h, BootOptions{})
				var own *workload.Error
				var denied *jail.Denied
				if !errors.As(err, &own) || !errors.As(err, &denied) || own.Remedy == "" {
					t.Fatalf("%v", err)
				}
				if !strings.Contains(err.Error(), call) || denied.Role != role {
					t.Errorf("%q does not say %s and %v", err, call, role)
				}
			})
		}
	}
}

// useShare says what comes of using a shared directory, and of leaving it.
func useShare(dir int) string {
	try := func(name string, flags int) error {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0o600)
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	}
	return fmt.Sprint("read: ", try("file", unix.O_RDONLY), ", make: ", try("new", unix.O_WRONLY|unix.O_CREAT), ", mkdir: ", unix.Mkdirat(dir, "d", 0o700),
		", leave: ", try("../secret", unix.O_RDONLY), ", link: ", try("link", unix.O_RDONLY), ", root: ", try("/etc/passwd", unix.O_RDONLY), ".")
}

// With a share the monitor may name files, and Landlock and its empty root see to
// it that they are the share's.
func TestMonitorShare(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		dir := t.TempDir()
		share := filepath.Join(dir, "share")
		err := errors.Join(os.Mkdir(share, 0o700), os.WriteFile(share+"/file", nil, 0o600),
			os.WriteFile(dir+"/secret", nil, 0o600), os.Symlink("/etc/passwd", share+"/link"))
		if err != nil {
			t.Fatal(err)
		}
		h := tiny(t, powerOff)
		h.Cmdline = "attack=share," + jail.Monitor.String()
		h.Shares = []Share{{Dir: share, Tag: "s", ReadOnly: readOnly}}
		_, _, err = Boot(t.Context(), h, BootOptions{})
		denied, ok := "permission denied", "<nil>"
		made := ok
		if readOnly {
			made = denied
		}
		want := fmt.Sprintf("read: %s, make: %s, mkdir: %s, leave: %s, link: no such file or directory, root: no such file or directory.", ok, made, made, denied)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("read-only %v: %v\nwant %s", readOnly, err, want)
		}
	}
}

// A monitor that fails says why.
func TestMonitorPanics(t *testing.T) {
	h := tiny(t, powerOff)
	h.Cmdline = "attack=panic," + jail.Monitor.String()
	_, _, err := Boot(t.Context(), h, BootOptions{})
	if err == nil || !strings.Contains(err.Error(), "an error of ours") {
		t.Errorf("%v", err)
	}
}

// parentName is argv[0] of a test's process that boots a guest and is killed.
const parentName = "duplex-test-parent"

// parentMain boots the kernel that it is given. With a second argument it forbids
// itself new user namespaces before.
func parentMain() {
	if len(os.Args) > 2 {
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	exit, _, err := Boot(context.Background(), Hardware{Kernel: os.Args[1], Memory: 4 << 20, CPUs: 1}, BootOptions{
		Serial: os.Stdout, Warn: func(s string) { fmt.Fprintln(os.Stderr, s) },
	})
	fmt.Fprintln(os.Stderr, exit, err)
	os.Exit(0)
}

// Where there are no user namespaces, the monitor runs with what is left of the
// jail, and that is said.
func TestNoNamespaces(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can take namespaces from itself without taking them from others")
	}
	h := tiny(t, say, powerOff)
	all := []syscall.SysProcIDMap{{Size: 1<<32 - 1}}
	parent := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{parentName, h.Kernel, "no namespaces"},
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: all, GidMappings: all},
	}
	out, err := parent.CombinedOutput()
	text := string(out)
	if err != nil || !strings.Contains(text, "!\n") || !strings.Contains(text, "<nil>") {
		t.Fatalf("%v: %s", err, text)
	}
	if !strings.Contains(text, "no namespaces of its own") {
		t.Errorf("nothing was said: %s", text)
	}
}

// kill -9 of the parent leaves no monitor.
func TestParentKilled(t *testing.T) {
	h := tiny(t, say)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	parent := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{parentName, h.Kernel}, Stdout: in, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	if _, err := out.Read(make([]byte, 1)); err != nil { // the guest runs
		t.Fatal(err)
	}
	pid := monitorOf(t, parent.Process.Pid)
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
	if n != 1 || err != nil {
		t.Errorf("monitor %d lives: %v", pid, err)
	}
}

// BenchmarkBootTiny is the time from Boot to the guest's first instruction, and
// that to the end.
func BenchmarkBootTiny(b *testing.B) {
	for name, noJail := range map[string]bool{"jail": false, "no jail": true} {
		b.Run(name, func(b *testing.B) {
			h := tiny(b, powerOff)
			var entered time.Duration
			var private int64
			for b.Loop() {
				began := workload.Now()
				o := BootOptions{NoJail: noJail, onCost: func(c cost) { private = c.private }, OnEvent: func(e vmm.Event, ns int64) {
					if e == vmm.Entered {
						entered += time.Duration(ns - began)
					}
				}}
				if _, _, err := Boot(b.Context(), h, o); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(entered.Microseconds())/1000/float64(b.N), "ms/entry")
			b.ReportMetric(float64(private>>10), "KiB-private")
		})
	}
}
