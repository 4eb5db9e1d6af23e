// Package vmm is duplex's virtual machine monitor: it boots a Linux kernel on
// /dev/kvm and serves its devices, all in this process.
//
//	cfg := vmm.Config{Kernel: "vmlinux", Initrd: "initramfs.cpio",
//		Cmdline: vmm.DefaultCmdline, Memory: 256 << 20, CPUs: 1, Console: os.Stderr}
//	vm, err := vmm.New(cfg)     // checks everything, then makes the VM and loads it
//	exit, err := vm.Run(ctx)    // until the guest ends or ctx does
//	vm.Close()
//
// The machine is as small as a stock kernel allows: KVM's in-kernel interrupt
// controllers and clock; hardware-reduced ACPI (package acpi) that announces the
// CPUs and the virtio-mmio devices (package virtio); a 16550 serial port for the
// kernel log; the reset line of an i8042; an ACPI sleep register to power off;
// and the marks port, through which the guest tells the host how far it is.
// There is no firmware, PCI, PIT, RTC or PIC.
//
//	I/O ports             MMIO
//	0x060, 0x064 i8042    0xd0000000 + n*0x1000  virtio device n, GSI 6+n
//	0x0d5        marks    0xfec00000  I/O APIC (in KVM)
//	0x3f8-0x3ff  serial   0xfee00000  local APICs (in KVM)
//	0x600, 0x601 sleep                GSI 4 serial, GSI 5 power button
//
// A run has these goroutines: one for each vCPU, locked to a thread that is in
// KVM_RUN; one for each virtqueue, waiting for its ioeventfd, which serves the
// device; one that writes the console; and the caller's in Run, which waits for
// the vCPU and for ctx. Devices interrupt the guest from their own goroutines.
// run.go starts and ends it all, vcpu.go is the loop, gate.go where a vCPU can be
// held, ports.go the small devices, devices.go the wiring of virtio.
//
// A guest is not trusted. Nothing it does ends this process or touches memory
// other than its own; at worst it burns the CPU time and the memory it was given.
package vmm
