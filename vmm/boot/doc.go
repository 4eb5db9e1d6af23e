// Package boot puts a Linux kernel into guest memory so that a vCPU can start
// it in 64-bit mode, without firmware.
//
// Parse reads the headers of a bzImage or an ELF vmlinux and says where the
// kernel wants to be; Plan checks that it fits with the initrd and the command
// line into the memory there is; Load copies everything into place. Parse and
// Plan touch no guest memory, so a bad configuration is refused before a VM
// exists.
//
// The contract with the kernel is "The Linux/x86 Boot Protocol"
// (Documentation/arch/x86/boot.rst), section "64-bit Boot Protocol": long mode,
// an identity map, a flat code segment 0x10 and data segment 0x18, RSI at the
// boot parameters ("zero page"), interrupts off. A bzImage is entered 0x200
// bytes into its protected-mode part and unpacks itself; a vmlinux is entered at
// its ELF entry point and skips that.
//
// Low memory, which the kernel does not use before it has read the boot
// parameters:
//
//	0x00500  GDT
//	0x07000  zero page
//	0x09000  page tables: 6 pages, the first 4 GiB in 2 MiB pages
//	0x20000  command line, 64 KiB at most
//	0xe0000  ACPI tables, to 0xfffff (package acpi)
//	1 MiB    and up: kernel; the initrd ends where memory does
package boot
