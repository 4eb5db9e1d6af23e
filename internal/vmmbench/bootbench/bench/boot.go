package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/duplex-run/duplex/internal/vmmbench"
	"github.com/duplex-run/duplex/internal/vmmbench/bootbench"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
)

// guestMemory is that of the guests, in bytes.
const guestMemory = 256 << 20

// command is run in the image; it writes a byte.
var command = []string{"/bin/echo", "-n", "x"}

// cmdline is what every guest's kernel is told, beside what is said of the machine.
var cmdline = strings.TrimSpace(strings.ReplaceAll(vmm.DefaultCmdline, vmm.MachineCmdline, ""))

// command starts a machine whose user space is heard on its serial port.
func (d *driver) command(ctx context.Context, c bootbench.Case) *exec.Cmd {
	f := d.files(c.Kernel)
	kernel, initrd := *f[0], d.bare
	if c.Monitor == bootbench.Duplex {
		return exec.CommandContext(ctx, d.duplex, "boot", "--lab=never", "--kernel="+kernel, "--initrd="+initrd,
			fmt.Sprintf("--memory=%dm", guestMemory>>20), "--balloon=false", "--cmdline="+cmdline)
	}
	line := cmdline
	var more []string
	if c.What == bootbench.Image {
		initrd = *f[2]
		line += " -- " + strings.Join(command, " ")
		more = []string{"-drive", "if=none,id=disk,format=raw,readonly=on,file=" + d.disk,
			"-device", "virtio-blk-device,drive=disk"}
	}
	return exec.CommandContext(ctx, d.qemu, append(vmmbench.QEMUMachine(kernel, initrd, line, guestMemory), more...)...)
}

// bootSerial boots a machine that says Ready on its serial port.
func (d *driver) bootSerial(ctx context.Context, cmd *exec.Cmd, c bootbench.Case) (map[string]int64, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	began := workload.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ns, err := follow(bufio.NewReader(out), c, began)
	if c.What == bootbench.Image || err != nil { // the command was the guest's init: its end is a panic
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return ns, err
	}
	_, _ = io.Copy(io.Discard, out) // until the machine is off
	return ns, cmd.Wait()
}

// follow reads what a guest writes, and when.
func follow(out *bufio.Reader, c bootbench.Case, began int64) (map[string]int64, error) {
	said, err := out.ReadString(bootbench.Ready)
	now := workload.Now()
	if err != nil {
		return nil, fmt.Errorf("the guest ended early (%w); its console: %q", err, said)
	}
	ns := map[string]int64{c.End(): now - began}
	if c.What == bootbench.Image {
		if said, err := out.ReadString('x'); err != nil || strings.TrimSpace(said) != "x" {
			rest, _ := io.ReadAll(out)
			return nil, fmt.Errorf("the guest's command failed (%v); its console: %q", err, said+string(rest))
		}
		ns[bootbench.FirstByte] = workload.Now() - began
	}
	return ns, nil
}

// runImage runs the image's command in a microVM of duplex's, or in a container.
func (d *driver) runImage(ctx context.Context, c bootbench.Case) (map[string]int64, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	args := []string{"run", "--report-fd=3", "--lab=never", "--container", d.image}
	if f := d.files(c.Kernel); c.Monitor == bootbench.Duplex {
		args = []string{"run", "--report-fd=3", "--lab=never", "--isolation=vm", fmt.Sprintf("--memory=%dm", guestMemory>>20),
			"--kernel=" + *f[0], "--initrd=" + *f[1], fmt.Sprintf("--warm=%v", c.What == bootbench.Warm), d.image}
	}
	cmd := exec.CommandContext(ctx, d.duplex, append(args, command...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{w}
	began := workload.Now()
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	_ = w.Close()
	var b [1]byte
	_, err = io.ReadFull(out, b[:])
	first := workload.Now()
	var report workload.Report
	derr := json.NewDecoder(r).Decode(&report)
	if err = errors.Join(err, derr, cmd.Wait()); err != nil {
		return nil, fmt.Errorf("%w %s", err, report.Error)
	}
	ns := map[string]int64{bootbench.FirstByte: first - began}
	for step, at := range report.Stamps {
		if step != bootbench.FirstByte {
			ns[step] = at - began
		}
	}
	if _, ok := ns[bootbench.Workload]; !ok {
		return nil, errors.New("the report does not say when the workload was started")
	}
	return ns, nil
}
