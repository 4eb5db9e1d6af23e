package vmm

import (
	"github.com/duplex-run/duplex/vmm/boot"
	"github.com/duplex-run/duplex/vmm/kvm"
)

// CPUID bits that guestCPUID changes (SDM volume 2, CPUID; AMD APM volume 3,
// appendix E).
const (
	leafFeatures    = 1
	leafTopology    = 0xb
	leafTopologyV2  = 0x1f
	leafAMDFeatures = 0x80000001
	ecxVMX          = 1 << 5
	ecxTSCDeadline  = 1 << 24
	ecxHypervisor   = 1 << 31
	ecxSVM          = 1 << 2
	edxHTT          = 1 << 28
)

// guestCPUID is what KVM supports, with four changes: the guest knows that it
// is one (and, from the leaves at 0x40000000 that KVM reports itself, that the
// hypervisor is KVM, which gives it kvm-clock and with it the TSC's frequency);
// it gets the TSC deadline timer, so that nothing has to be calibrated; it has
// one CPU with APIC id 0, whatever the host has; and it gets no virtualisation
// of its own, which would only widen what a hostile guest can reach.
func guestCPUID(sys *kvm.System) ([]kvm.CPUIDEntry, error) {
	leaves, err := sys.SupportedCPUID()
	if err != nil {
		return nil, err
	}
	deadline, err := sys.Check(kvm.CapTSCDeadlineTimer)
	if err != nil {
		return nil, err
	}
	for i := range leaves {
		l := &leaves[i]
		switch l.Function {
		case leafFeatures:
			l.EBX = l.EBX&0x0000ffff | 1<<16 // APIC id 0, one logical processor
			l.ECX = l.ECX&^ecxVMX | ecxHypervisor
			if deadline != 0 {
				l.ECX |= ecxTSCDeadline
			}
			l.EDX &^= edxHTT
		case leafTopology, leafTopologyV2:
			l.EAX, l.EBX, l.EDX = 0, min(l.EBX, 1), 0
		case leafAMDFeatures:
			l.ECX &^= ecxSVM
		}
	}
	return leaves, nil
}

// Control register, EFER and RFLAGS bits (SDM volume 3, section 2.5).
const (
	cr0PE       = 1 << 0
	cr0ET       = 1 << 4
	cr0PG       = 1 << 31
	cr4PAE      = 1 << 5
	eferLME     = 1 << 8
	eferLMA     = 1 << 10
	rflagsFixed = 1 << 1
)

// longMode changes reset-state registers to those of the 64-bit boot protocol.
func longMode(s *kvm.Sregs, start boot.Start) {
	flat := kvm.Segment{Limit: 0xffffffff, Present: 1, S: 1, G: 1}
	code := flat
	code.Selector, code.Type, code.L = boot.CodeSelector, 0xb, 1
	data := flat
	data.Selector, data.Type, data.DB = boot.DataSelector, 0x3, 1
	s.CS = code
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.GDT = kvm.Table{Base: uint64(start.GDT), Limit: start.GDTLimit}
	s.IDT = kvm.Table{}
	s.CR3 = uint64(start.CR3)
	s.CR4 |= cr4PAE
	s.CR0 = cr0PE | cr0ET | cr0PG
	s.EFER |= eferLME | eferLMA
}

// bootMSRs are what firmware would have set: fast string instructions, and all
// memory write-back cached unless a range says otherwise (SDM volume 3, section
// 12.11.2.1).
var bootMSRs = []kvm.MSR{
	{Index: 0x1a0, Data: 1},             // IA32_MISC_ENABLE
	{Index: 0x2ff, Data: 1<<11 | 0x006}, // IA32_MTRR_DEF_TYPE
}
