package vmmbench

import (
	"io"
	"strconv"
	"time"

	"github.com/duplex-run/duplex/vmm"
)

// Firmware is what QEMU's microvm machine starts with: qboot. Nothing names it to
// QEMU, so it is to be carried into a lab.
const Firmware = "/usr/share/qemu/bios-microvm.bin"

// QEMUMachine are QEMU's arguments for the machine that is most like duplex's, with
// one CPU: virtio-mmio, no PCI, the guest's kernel loaded without an option ROM, a
// serial port on standard output. Interrupt controllers and clocks are KVM's in
// both. It has an RTC, because its ACPI tables do not say when there is none, and a
// kernel then looks for it for 1.4 s of instruction time.
//
// memory is in bytes; cmdline follows what the kernel of duplex's machine is told
// of it; initrd may be "".
func QEMUMachine(kernel, initrd, cmdline string, memory int64) []string {
	args := []string{
		"-M", "microvm,x-option-roms=off,auto-kernel-cmdline=off,acpi=on,rtc=on",
		"-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", strconv.FormatInt(memory>>20, 10) + "M",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-global", "virtio-mmio.force-legacy=off",
		"-kernel", kernel, "-append", vmm.MachineCmdline + " " + cmdline,
		"-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial",
	}
	if initrd != "" {
		args = append(args, "-initrd", initrd)
	}
	return args
}

// Tick is an input with a byte a second. Each is an interrupt in the lab: QEMU's
// emulation of SVM may lose one, the next makes up for it, and a deterministic
// lab is sent none by itself (docs/lab.md). The driver reads and drops it.
func Tick() (io.Reader, func()) {
	r, w := io.Pipe()
	t := time.NewTicker(time.Second)
	go func() {
		for range t.C {
			if _, err := w.Write([]byte("\n")); err != nil {
				return
			}
		}
	}()
	return r, func() { t.Stop(); _ = r.Close() }
}
