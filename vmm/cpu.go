package vmm

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/duplex-run/duplex/vmm/boot"
	"github.com/duplex-run/duplex/vmm/kvm"
	"github.com/duplex-run/duplex/vmm/memory"
)

// CPUID leaves and bits that guests see changed (SDM volume 2, CPUID; AMD APM
// volume 3, appendix E).
const (
	leafVendor      = 0
	leafFeatures    = 1
	leafCaches      = 4
	leafTopology    = 0xb
	leafTopologyV2  = 0x1f
	leafAMDFeatures = 0x80000001
	leafSizes       = 0x80000008
	leafAMDCaches   = 0x8000001d
	leafAMDTopology = 0x8000001e

	ecxVMX         = 1 << 5
	ecxTSCDeadline = 1 << 24
	ecxHypervisor  = 1 << 31
	ecxCmpLegacy   = 1 << 1
	ecxSVM         = 1 << 2
	edxHTT         = 1 << 28

	vendorIntel = 0x756e6547 // EBX of leaf 0: "Genu"

	indexSignificant = 1 // KVM_CPUID_FLAG_SIGNIFCANT_INDEX
)

// supportedCPUID is what KVM supports, with three changes: the guest knows that
// it is one (and, from the leaves at 0x40000000 that KVM reports itself, that the
// hypervisor is KVM, which gives it kvm-clock and with it the TSC's frequency);
// it gets the TSC deadline timer, so that nothing has to be calibrated; and it
// gets no virtualisation of its own, which would only widen what a hostile guest
// can reach.
func supportedCPUID(sys *kvm.System) ([]kvm.CPUIDEntry, error) {
	leaves, err := sys.SupportedCPUID()
	if err != nil {
		return nil, err
	}
	deadline, err := sys.Check(kvm.CapTSCDeadlineTimer)
	if err != nil {
		return nil, err
	}
	for i := range leaves {
		switch l := &leaves[i]; l.Function {
		case leafFeatures:
			l.ECX = l.ECX&^ecxVMX | ecxHypervisor
			if deadline != 0 {
				l.ECX |= ecxTSCDeadline
			}
		case leafAMDFeatures:
			l.ECX &^= ecxSVM
		}
	}
	return leaves, nil
}

// guestCPUID is leaves for vCPU id of n: one package of n cores with one thread
// each, whose APIC ids are their numbers, whatever the host is made of.
func guestCPUID(leaves []kvm.CPUIDEntry, id, n int) []kvm.CPUIDEntry {
	intel, highest := true, uint32(0)
	if l := leaf(leaves, leafVendor); l != nil {
		intel, highest = l.EBX == vendorIntel, l.EAX
	}
	width := uint32(bits.Len(uint(n - 1))) // of the core's number in an APIC id
	var out []kvm.CPUIDEntry
	for _, l := range leaves {
		switch l.Function {
		case leafFeatures:
			l.EBX = l.EBX&0x0000ffff | uint32(n)<<16 | uint32(id)<<24
			l.EDX &^= edxHTT
			if n > 1 {
				l.EDX |= edxHTT
			}
		case leafCaches, leafAMDCaches:
			shareCache(&l, width, l.Function == leafCaches)
		case leafTopology, leafTopologyV2:
			continue // made anew below
		case leafAMDFeatures:
			if !intel && n > 1 {
				l.ECX |= ecxCmpLegacy
			}
		case leafSizes:
			if !intel {
				l.ECX = width<<12 | uint32(n-1)
			}
		case leafAMDTopology:
			l.EAX, l.EBX, l.ECX = uint32(id), uint32(id)&0xff, 0
		}
		out = append(out, l)
	}
	for _, f := range []uint32{leafTopology, leafTopologyV2} {
		if f <= highest {
			out = append(out, topology(f, uint32(id), uint32(n), width)...)
		}
	}
	return out
}

// shareCache says that the last cache is the package's and the others a core's.
func shareCache(l *kvm.CPUIDEntry, width uint32, cores bool) {
	const lastLevel = 3
	kind, level := l.EAX&0x1f, l.EAX>>5&7
	if kind == 0 {
		return
	}
	share := uint32(0)
	if level >= lastLevel {
		share = 1<<width - 1
	}
	l.EAX = l.EAX&^(0xfff<<14) | share<<14
	if cores {
		l.EAX = l.EAX&^(0x3f<<26) | min(uint32(1)<<width-1, 0x3f)<<26
	}
}

// topology is the extended topology leaf: threads of a core, cores of the package.
func topology(function, id, n, width uint32) []kvm.CPUIDEntry {
	const thread, core = 1 << 8, 2 << 8
	entry := func(index, eax, ebx, ecx uint32) kvm.CPUIDEntry {
		return kvm.CPUIDEntry{Function: function, Index: index, Flags: indexSignificant, EAX: eax, EBX: ebx, ECX: index | ecx, EDX: id}
	}
	return []kvm.CPUIDEntry{entry(0, 0, 1, thread), entry(1, width, n, core), entry(2, 0, 0, 0)}
}

func leaf(leaves []kvm.CPUIDEntry, function uint32) *kvm.CPUIDEntry {
	i := slices.IndexFunc(leaves, func(l kvm.CPUIDEntry) bool { return l.Function == function })
	if i < 0 {
		return nil
	}
	return &leaves[i]
}

// checkMemory refuses memory that the processor has no address bits for.
func (v *VM) checkMemory(leaves []kvm.CPUIDEntry) error {
	width := uint32(36) // of processors that do not say
	if l := leaf(leaves, leafSizes); l != nil {
		width = l.EAX & 0xff
	}
	end := v.cfg.Memory
	if end > uint64(memory.HoleStart) {
		end += uint64(memory.HoleEnd - memory.HoleStart)
	}
	if width < 64 && end > 1<<width {
		return fmt.Errorf("%w: %d MiB of memory, this processor addresses %d MiB", ErrConfig,
			v.cfg.Memory>>20, 1<<width>>20-uint64(memory.HoleEnd-memory.HoleStart)>>20)
	}
	return nil
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
