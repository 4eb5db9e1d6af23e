// Package trace writes down every exit of a VM, and reads it again.
//
// A trace file is one line of JSON, the Header, and then records of 32 bytes,
// little-endian:
//
//	 0  uint64  when, nanoseconds of CLOCK_MONOTONIC since Header.Start
//	 8  uint64  I/O port, guest physical address, or the value of a mark or event
//	16  uint32  nanoseconds the monitor took to handle the exit
//	20  uint8   Kind: the exit reason of KVM, or Mark, Event, Dropped
//	21  uint8   1 if the guest wrote
//	22  uint8   bytes of one access
//	23  uint8   vCPU
//	24  uint32  accesses of a string instruction
//	28  uint32  the first four bytes the guest wrote
//
// Each vCPU fills a buffer of its own, which goes to the file when it is full:
// there is no lock and no system call for most exits. Records of one vCPU are in
// order, those of several are not. A file ends at Header.Limit; what comes after
// is only counted, so that a guest cannot fill the disk.
//
//	w, _ := trace.Create("boot.trace", trace.Header{VCPUs: 1})
//	vmm.Config{Trace: w, ...}
//	...
//	s, _ := trace.Summarize(file)
//	s.WriteText(os.Stdout)
package trace
