package vmm

import "github.com/duplex-run/duplex/vmm/kvm"

// trType is where struct kvm_sregs has the type of the task register's segment.
const trType = 6*24 + 14

// unbusyTask gives an AMD processor the task state segment as it had it. AMD's VMCB
// does not say that the segment is busy, for which KVM makes up (svm_get_segment, in
// arch/x86/kvm/svm/svm.c): type 11 where the processor has 9. Intel's insists on 11,
// a real AMD processor does not care, but QEMU's emulation of one, which the lab
// runs on, finds an I/O permission bitmap only in a segment of type 9 (check_io):
// without this a restored guest's user space gets #GP at ports that it was given by
// ioperm(2).
func unbusyTask(leaves []kvm.CPUIDEntry, s *kvm.CPUState) {
	const authenticAMD, busy = 0x68747541, 2 // "Auth"
	if len(leaves) > 0 && leaves[0].Function == 0 && leaves[0].EBX == authenticAMD {
		s.Sregs[trType] &^= busy
	}
}
