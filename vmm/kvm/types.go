package kvm

// ioctl request numbers of <linux/kvm.h> on x86-64.
const (
	reqGetAPIVersion       = 0xae00
	reqCreateVM            = 0xae01
	reqCheckExtension      = 0xae03
	reqGetVCPUMmapSize     = 0xae04
	reqGetSupportedCPUID   = 0xc008ae05
	reqCreateVCPU          = 0xae41
	reqSetUserMemoryRegion = 0x4020ae46
	reqSetTSSAddr          = 0xae47
	reqSetIdentityMapAddr  = 0x4008ae48
	reqCreateIRQChip       = 0xae60
	reqIRQLine             = 0x4008ae61
	reqIRQFD               = 0x4020ae76
	reqIOEventFD           = 0x4040ae79
	reqRun                 = 0xae80
	reqGetRegs             = 0x8090ae81
	reqSetRegs             = 0x4090ae82
	reqGetSregs            = 0x8138ae83
	reqSetSregs            = 0x4138ae84
	reqGetMSRs             = 0xc008ae88
	reqSetMSRs             = 0x4008ae89
	reqSetCPUID2           = 0x4008ae90
	reqGetMSRIndexList     = 0xc004ae02
	reqGetIRQChip          = 0xc208ae62
	reqSetIRQChip          = 0x8208ae63
	reqSetClock            = 0x4030ae7b
	reqGetClock            = 0x8030ae7c
	reqGetLAPIC            = 0x8400ae8e
	reqSetLAPIC            = 0x4400ae8f
	reqGetMPState          = 0x8004ae98
	reqSetMPState          = 0x4004ae99
	reqGetVCPUEvents       = 0x8040ae9f
	reqSetVCPUEvents       = 0x4040aea0
	reqGetDebugRegs        = 0x8080aea1
	reqSetDebugRegs        = 0x4080aea2
	reqSetTSCKHz           = 0xaea2
	reqGetTSCKHz           = 0xaea3
	reqGetXSave            = 0x9000aea4
	reqSetXSave            = 0x5000aea5
	reqGetXCRs             = 0x8188aea6
	reqSetXCRs             = 0x4188aea7
	reqKVMClockCtrl        = 0xaead
	reqGetStatsFD          = 0xaece
)

// APIVersion is the only version of the API there is: KVM_GET_API_VERSION has
// answered 12 since Linux 2.6.22.
const APIVersion = 12

// Capability is an argument of KVM_CHECK_EXTENSION.
type Capability int

// The capabilities the monitor asks about.
const (
	CapIRQChip          Capability = 0
	CapUserMemory       Capability = 3
	CapSetTSSAddr       Capability = 4
	CapExtCPUID         Capability = 7
	CapNrMemSlots       Capability = 10
	CapIRQFD            Capability = 32
	CapIOEventFD        Capability = 36
	CapSetIdentityMap   Capability = 37
	CapTSCDeadlineTimer Capability = 72
	CapImmediateExit    Capability = 136
)

var capNames = map[Capability]string{
	CapIRQChip:          "KVM_CAP_IRQCHIP",
	CapUserMemory:       "KVM_CAP_USER_MEMORY",
	CapSetTSSAddr:       "KVM_CAP_SET_TSS_ADDR",
	CapExtCPUID:         "KVM_CAP_EXT_CPUID",
	CapNrMemSlots:       "KVM_CAP_NR_MEMSLOTS",
	CapIRQFD:            "KVM_CAP_IRQFD",
	CapIOEventFD:        "KVM_CAP_IOEVENTFD",
	CapSetIdentityMap:   "KVM_CAP_SET_IDENTITY_MAP_ADDR",
	CapTSCDeadlineTimer: "KVM_CAP_TSC_DEADLINE_TIMER",
	CapImmediateExit:    "KVM_CAP_IMMEDIATE_EXIT",
}

func (c Capability) String() string { return capNames[c] }

// Required are the capabilities without which the monitor cannot run a guest.
var Required = []Capability{
	CapIRQChip, CapUserMemory, CapSetTSSAddr, CapExtCPUID, CapNrMemSlots,
	CapIRQFD, CapIOEventFD, CapSetIdentityMap, CapImmediateExit,
}

// Regs is struct kvm_regs: the general-purpose registers.
type Regs struct {
	RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11, R12, R13, R14, R15   uint64
	RIP, RFLAGS                            uint64
}

// Segment is struct kvm_segment.
type Segment struct {
	Base                           uint64
	Limit                          uint32
	Selector                       uint16
	Type                           uint8
	Present, DPL, DB, S, L, G, AVL uint8
	Unusable                       uint8
	_                              uint8
}

// Table is struct kvm_dtable: a descriptor table register.
type Table struct {
	Base  uint64
	Limit uint16
	_     [3]uint16
}

// Sregs is struct kvm_sregs: segment and control registers.
type Sregs struct {
	CS, DS, ES, FS, GS, SS  Segment
	TR, LDT                 Segment
	GDT, IDT                Table
	CR0, CR2, CR3, CR4, CR8 uint64
	EFER                    uint64
	APICBase                uint64
	InterruptBitmap         [4]uint64
}

// CPUIDEntry is struct kvm_cpuid_entry2: one leaf (and sub-leaf) of CPUID.
type CPUIDEntry struct {
	Function, Index, Flags uint32
	EAX, EBX, ECX, EDX     uint32
	_                      [3]uint32
}

// MSR is struct kvm_msr_entry.
type MSR struct {
	Index uint32
	_     uint32
	Data  uint64
}

// maxCPUID bounds the leaves KVM may report; KVM_MAX_CPUID_ENTRIES is 256.
const maxCPUID = 256

type cpuidTable struct {
	n       uint32
	_       uint32
	entries [maxCPUID]CPUIDEntry
}

// maxMSRs bounds one KVM_GET_MSRS or KVM_SET_MSRS; KVM's MAX_IO_MSRS is 256.
const maxMSRs = 256

type msrTable struct {
	n       uint32
	_       uint32
	entries [maxMSRs]MSR
}

type memoryRegion struct {
	slot, _                     uint32
	guest, size, userspaceStart uint64
}

type irqLevel struct{ gsi, level uint32 }

type irqFD struct {
	fd, gsi, _, _ uint32
	_             [16]uint8
}

type ioEventFD struct {
	datamatch, addr uint64
	len             uint32
	fd              int32
	flags           uint32
	_               [36]uint8
}
