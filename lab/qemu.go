package lab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/console"
	"github.com/duplex-run/duplex/internal/workload"
)

const qemu = "qemu-system-x86_64"

// cpuModel is a CPU of level x86-64-v2 (x86-64 psABI) with SVM and little else. All
// that TCG can emulate (-cpu max) costs a third more time from the start of a lab
// to the end of a microVM in it: "rep movsb" is emulated byte by byte, and a
// kernel that sees ERMS copies with it; SMAP ends a translated block at every
// access to user memory; AVX makes each switch of context longer.
const cpuModel = "qemu64,+svm,+npt,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+movbe,+bmi1,+bmi2,+fsgsbase,+rdrand,+rdtscp"

// disk is one read-only virtio-blk disk.
type disk struct {
	serial string // at most 20 characters (virtio 1.2, 5.2.6)
	path   string
}

// config is the machine as QEMU is told to make it.
type config struct {
	kernel, initrd string
	append         string
	memory         int64 // bytes
	cpus           int
	deterministic  bool
	disks          []disk
}

// ports are the streams of the machine, in the order of their descriptors; the
// console comes before them.
var ports = []agentproto.Port{agentproto.Control, agentproto.Stdin, agentproto.Stdout, agentproto.Stderr, agentproto.Return, agentproto.Further}

// firstFD is the number of the first descriptor in exec.Cmd.ExtraFiles.
const firstFD = 3

// arguments returns QEMU's command line. Descriptor firstFD is the console,
// those after it are ports.
func (c config) arguments() []string {
	args := []string{
		"-M", "microvm,x-option-roms=off,auto-kernel-cmdline=off,acpi=on,rtc=on",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		// What the machine needs no more once it runs, a guest that breaks out of it
		// does not get either (seccomp, no_new_privs).
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-cpu", cpuModel, "-m", strconv.FormatInt(c.memory>>20, 10) + "M",
		"-kernel", c.kernel, "-initrd", c.initrd, "-append", c.append,
		"-global", "virtio-mmio.force-legacy=off",
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d", firstFD), "-serial", "chardev:console",
		"-device", "virtio-serial-device,max_ports=8",
		"-device", "virtio-rng-device",
	}
	if c.deterministic {
		args = append(args, "-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off", "-smp", "1")
	} else {
		args = append(args, "-accel", "tcg,thread=multi", "-smp", strconv.Itoa(c.cpus))
	}
	for i, p := range ports {
		id := p.Name()
		args = append(args, "-chardev", fmt.Sprintf("socket,id=%s,fd=%d", id, firstFD+1+i),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s,nr=%d", id, p.Serial(), i+1))
	}
	for _, d := range c.disks {
		args = append(args,
			"-drive", fmt.Sprintf("if=none,id=%s,format=raw,readonly=on,file=%s", d.serial, strings.ReplaceAll(d.path, ",", ",,")),
			"-device", fmt.Sprintf("virtio-blk-device,drive=%s,serial=%s", d.serial, d.serial))
	}
	return args
}

// machine is a running QEMU.
type machine struct {
	cmd     *exec.Cmd
	console *os.File
	streams map[agentproto.Port]*os.File
	stderr  *console.Tail
	// ended is closed when the process is gone; err is then why.
	ended chan struct{}
	err   error
}

// start starts QEMU. The process is killed when this one dies: Pdeathsig is
// bound to the thread that forked, so that thread is kept until QEMU ends.
func start(c config) (*machine, error) {
	path, err := exec.LookPath(qemu)
	if err != nil {
		return nil, &workload.Error{Op: "start the lab", Err: err, Remedy: "apt-get install qemu-system-x86"}
	}
	m := &machine{streams: make(map[agentproto.Port]*os.File), ended: make(chan struct{}), stderr: new(console.Tail)}
	m.cmd = exec.Command(path, c.arguments()...)
	m.cmd.Stderr = m.stderr
	// Its own process group: a Ctrl-C at the terminal is ours to handle.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if m.console, err = m.pair("console"); err != nil {
		return nil, m.unwind(err)
	}
	for _, p := range ports {
		if m.streams[p], err = m.pair(p.Name()); err != nil {
			return nil, m.unwind(err)
		}
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := m.cmd.Start()
		started <- err
		if err == nil {
			m.err = m.cmd.Wait()
			close(m.ended)
		}
	}()
	err = <-started
	for _, f := range m.cmd.ExtraFiles {
		_ = f.Close()
	}
	if err != nil {
		m.cmd.ExtraFiles = nil
		return nil, m.unwind(fmt.Errorf("start %s: %w", path, err))
	}
	return m, nil
}

// pair makes a socket pair, hands one end to QEMU as its next descriptor and
// returns the other.
func (m *machine) pair(name string) (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket pair: %w", err)
	}
	m.cmd.ExtraFiles = append(m.cmd.ExtraFiles, os.NewFile(uintptr(fds[1]), "qemu:"+name))
	if err := unix.SetNonblock(fds[0], true); err != nil {
		_ = unix.Close(fds[0])
		return nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), name), nil
}

func (m *machine) unwind(err error) error {
	for _, f := range m.cmd.ExtraFiles {
		_ = f.Close()
	}
	m.closeStreams()
	return err
}

func (m *machine) closeStreams() {
	if m.console != nil {
		_ = m.console.Close()
	}
	for _, f := range m.streams {
		_ = f.Close()
	}
}

// kill ends QEMU, which has nothing to save.
func (m *machine) kill() { _ = m.cmd.Process.Kill() }

// stop kills QEMU and waits until it is gone.
func (m *machine) stop() {
	m.kill()
	<-m.ended
	m.closeStreams()
}
