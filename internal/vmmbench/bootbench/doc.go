// Package bootbench measures how quickly duplex boots, against QEMU, and holds
// it to a budget. `make bench-boot` runs it; docs/boot-time.md says what the
// numbers mean.
//
// There are two programs. guest is the /init of the machines that QEMU boots from
// an image. bench does everything else:
//
//	bench            on the host: makes what is booted, starts a lab, prints the table
//	bench -budget F  the same for duplex alone, and fails when it got slower
//	bench in-lab     in the lab: starts the monitors in turn, prints a Record a boot
//
// This package is what they have in common: the cases, the records, the table
// that is made of them, and the budget.
//
// To add a case, add it to Cases and teach the driver how to start it.
package bootbench
