package vmm

import (
	"github.com/duplex-run/duplex/vmm/acpi"
	"github.com/duplex-run/duplex/vmm/serial"
)

// I/O ports of the small devices.
const (
	portI8042Data    = 0x60
	portI8042Command = 0x64
	portMarks        = 0xd5
	portSerial       = 0x3f8
	portSleepControl = 0x600
	portSleepStatus  = 0x601

	gsiGeneration = 3
	gsiSerial     = 4
	gsiPower      = 5
	firstGSI      = 6
)

// i8042Reset is the command that pulses the processor's reset line.
const i8042Reset = 0xfe

// writeOnly is a port that acts on bytes written and reads as a constant.
type writeOnly struct {
	value byte
	write func(byte)
}

func (w writeOnly) Read(_ uint64, p []byte) {
	for i := range p {
		p[i] = w.value
	}
}

func (w writeOnly) Write(_ uint64, p []byte) {
	if len(p) == 1 {
		w.write(p[0])
	}
}

// attachPorts puts the small devices on the port bus. serialIRQ interrupts the
// guest for the serial port.
func (v *VM) attachPorts(serialIRQ func()) error {
	v.console = newConsole(v.cfg.Console)
	nothing := func(byte) {}
	for _, p := range []struct {
		base uint64
		h    writeOnly
	}{
		// The controller's status says: nothing to read, ready for a command. So
		// a probe ends at once, and the reset command goes through.
		{portI8042Data, writeOnly{0, nothing}},
		{portI8042Command, writeOnly{0, v.i8042Command}},
		{portMarks, writeOnly{0, v.mark}},
		{portSleepControl, writeOnly{0, v.sleep}},
		{portSleepStatus, writeOnly{0, nothing}},
	} {
		if err := v.ports.Register(p.base, 1, p.h); err != nil {
			return err
		}
	}
	v.serial = serial.New(v.console, serialIRQ)
	return v.ports.Register(portSerial, serial.Ports, v.serial)
}

func (v *VM) i8042Command(b byte) {
	if b == i8042Reset {
		v.end(Exit{Reason: Reset})
	}
}

func (v *VM) mark(b byte) {
	if v.cfg.OnMark != nil {
		v.cfg.OnMark(b, now())
	}
}

// sleep is the ACPI sleep control register: the only state there is to enter is
// S5 (ACPI 6.5 section 4.8.3.7).
func (v *VM) sleep(b byte) {
	if b&acpi.SleepEnable != 0 && b>>2&7 == acpi.SleepType {
		v.end(Exit{Reason: PowerOff})
	}
}

// describe is the machine as the ACPI tables tell it.
func (v *VM) describe() acpi.Config {
	c := acpi.Config{
		CPUs: v.cfg.CPUs, SleepControl: portSleepControl, SleepStatus: portSleepStatus,
		ResetPort: portI8042Command, ResetValue: i8042Reset,
		SerialPort: portSerial, SerialGSI: gsiSerial, PowerGSI: gsiPower, GenerationGSI: gsiGeneration,
	}
	for i := range len(v.cfg.Devices) + v.cfg.Slots {
		c.Devices = append(c.Devices, place(i))
	}
	return c
}
