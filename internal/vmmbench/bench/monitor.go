package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/duplex-run/duplex/internal/vmmbench"
)

// monitor is a machine that is about to start.
type monitor struct {
	cmd    *exec.Cmd
	others []int // processes beside it
	stop   func()
}

// guestCmdline is what every guest's kernel is told: nothing but what is
// critical on the serial port, and no self-tests of ciphers, which take long.
func (d *driver) guestCmdline() string {
	return "console=ttyS0 loglevel=3 panic=-1 cryptomgr.notests " + vmmbench.SuitesKey + "=" + d.suites
}

func (d *driver) has(s vmmbench.Suite) bool { return strings.Contains(d.suites, string(s)) }

// monitor makes the command that starts the machine. ctx ends it.
func (d *driver) monitor(ctx context.Context, name string) (*monitor, error) {
	if name == vmmbench.QEMU {
		return d.qemuMonitor(ctx)
	}
	return &monitor{cmd: exec.CommandContext(ctx, d.duplex, d.duplexArguments()...), stop: func() {}}, nil
}

func (d *driver) duplexArguments() []string {
	args := []string{"boot", "--lab=never", "--kernel=" + d.kernel, "--initrd=" + d.initrd,
		"--memory=" + mib(guestMemory) + "m", "--cpus=1", "--serial=stdio", "--balloon=false",
		"--cmdline=" + d.guestCmdline()}
	if d.has(vmmbench.Blk) {
		args = append(args, "--disk="+diskFile)
	}
	if d.has(vmmbench.Net) {
		args = append(args, "--net=tap="+tapName)
	}
	if d.has(vmmbench.FS) {
		args = append(args, "--share="+shareDir+":"+vmmbench.ShareTag)
	}
	return args
}

func (d *driver) qemuArguments() []string {
	args := vmmbench.QEMUMachine(d.kernel, d.initrd, d.guestCmdline(), guestMemory)
	if d.has(vmmbench.Blk) {
		args = append(args, "-drive", "if=none,id=disk,format=raw,cache=writeback,aio=threads,file="+diskFile,
			"-device", "virtio-blk-device,drive=disk")
	}
	if d.has(vmmbench.Net) {
		args = append(args, "-netdev", "tap,id=net,script=no,downscript=no,vhost=off,ifname="+tapName,
			"-device", "virtio-net-device,netdev=net")
	}
	if d.has(vmmbench.FS) {
		args = append(args,
			"-object", "memory-backend-memfd,id=mem,share=on,size="+mib(guestMemory)+"M", "-machine", "memory-backend=mem",
			"-chardev", "socket,id=fs,path="+fsSocket, "-device", "vhost-user-fs-device,chardev=fs,tag="+vmmbench.ShareTag)
	}
	return args
}

func (d *driver) qemuMonitor(ctx context.Context) (*monitor, error) {
	m := &monitor{cmd: exec.CommandContext(ctx, d.qemu, d.qemuArguments()...), stop: func() {}}
	if !d.has(vmmbench.FS) {
		return m, nil
	}
	if d.virtiofsd == "" {
		return nil, errors.New("virtiofsd is not installed")
	}
	_ = os.Remove(fsSocket)
	fsd := exec.CommandContext(ctx, d.virtiofsd, "--socket-path="+fsSocket, "-o", "source="+shareDir, "-o", "sandbox=chroot")
	fsd.Stderr = os.Stderr
	if err := fsd.Start(); err != nil {
		return nil, err
	}
	m.others = []int{fsd.Process.Pid}
	m.stop = func() { _ = fsd.Process.Kill(); _ = fsd.Wait() }
	for range 1000 { // until it listens
		if _, err := os.Stat(fsSocket); !errors.Is(err, fs.ErrNotExist) {
			return m, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.stop()
	return nil, fmt.Errorf("virtiofsd made no %s", fsSocket)
}
