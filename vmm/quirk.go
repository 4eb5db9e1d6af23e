package vmm

import (
	"encoding/binary"
	"strings"

	"github.com/duplex-run/duplex/vmm/kvm"
)

// trType is where struct kvm_sregs has the type of the task register's segment.
const trType = 6*24 + 14

// suitEmulator changes a saved vCPU to what QEMU's emulation of SVM, which the lab
// runs on, wants. KVM says that the task state segment is busy (type 11), as every
// processor has it that LTR was executed on; QEMU 7.2 gives a guest an I/O permission
// bitmap only in an available one (type 9; check_io), so that a restored guest's
// user space would get #GP at ports that it was given by ioperm(2).
func suitEmulator(leaves []kvm.CPUIDEntry, s *kvm.CPUState) {
	const busy = 2
	if strings.HasPrefix(brand(leaves), "QEMU ") {
		s.Sregs[trType] &^= busy
	}
}

// brand is the processor's name: CPUID leaves 0x80000002 to 0x80000004.
func brand(leaves []kvm.CPUIDEntry) string {
	var name []byte
	for f := uint32(0x80000002); f <= 0x80000004; f++ {
		for _, l := range leaves {
			if l.Function == f {
				for _, r := range []uint32{l.EAX, l.EBX, l.ECX, l.EDX} {
					name = binary.LittleEndian.AppendUint32(name, r)
				}
			}
		}
	}
	return strings.TrimRight(string(name), "\x00 ")
}
