package jail

// request is an ioctl(2) request number (<linux/kvm.h>, <linux/if_tun.h>).
type request struct {
	name   string
	number uint32
}

// vcpuRequests are what a vCPU's thread may ask of KVM: to run the guest, to look
// at its registers when it has gone wrong, and to interrupt it when it broke a
// device's rules by writing a register.
var vcpuRequests = []request{
	{"KVM_RUN", 0xae80},
	{"KVM_GET_REGS", 0x8090ae81},
	{"KVM_GET_SREGS", 0x8138ae83},
	{"KVM_IRQ_LINE", 0x4008ae61},
}

// monitorRequests are what the other threads may ask of KVM and of a TAP.
var monitorRequests = []request{
	{"KVM_IRQFD", 0x4020ae76},
	{"KVM_IOEVENTFD", 0x4040ae79},
	{"TUNSETOFFLOAD", 0x400454d0},
}

// savingRequests read a machine's state; they change nothing.
var savingRequests = []request{
	{"KVM_GET_TSC_KHZ", 0xaea3},
	{"KVM_GET_MP_STATE", 0x8004ae98},
	{"KVM_GET_XSAVE", 0x9000aea4},
	{"KVM_GET_XCRS", 0x8188aea6},
	{"KVM_GET_DEBUGREGS", 0x8080aea1},
	{"KVM_GET_LAPIC", 0x8400ae8e},
	{"KVM_GET_MSRS", 0xc008ae88},
	{"KVM_GET_VCPU_EVENTS", 0x8040ae9f},
	{"KVM_GET_IRQCHIP", 0xc208ae62},
	{"KVM_GET_CLOCK", 0x8030ae7c},
}

// known are requests by name for reports, though nobody may make them.
var known = []request{
	{"KVM_CREATE_VM", 0xae01},
	{"KVM_CHECK_EXTENSION", 0xae03},
	{"KVM_CREATE_VCPU", 0xae41},
	{"KVM_SET_USER_MEMORY_REGION", 0x4020ae46},
	{"KVM_CREATE_IRQCHIP", 0xae60},
	{"KVM_CREATE_DEVICE", 0xc00caee0},
	{"KVM_SET_REGS", 0x4090ae82},
	{"KVM_SET_SREGS", 0x4138ae84},
	{"KVM_SET_MSRS", 0x4008ae89},
	{"KVM_SET_CPUID2", 0x4008ae90},
	{"TUNSETIFF", 0x400454ca},
	{"TCGETS", 0x5401},
	{"TIOCSTI", 0x5412},
	{"FIONREAD", 0x541b},
}
