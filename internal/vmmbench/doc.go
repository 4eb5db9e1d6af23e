// Package vmmbench measures duplex's devices against QEMU's, and what a machine
// costs beside its guest. `make bench-vmm` runs it; docs/measuring.md says what
// the numbers mean.
//
// There are two programs. guest is the /init of the measured guests: it runs the
// benchmarks and prints a Line for each step. bench does everything else:
//
//	bench            on the host: makes the initramfs, starts one lab, prints the table
//	bench in-lab     in the lab: starts the monitors in turn, prints a Record a result
//
// This package is what they have in common: the names of the benchmarks, the
// lines and records, and the table that is made of the records.
//
// To add a benchmark, add it to Benchmarks and write it in guest.
package vmmbench
