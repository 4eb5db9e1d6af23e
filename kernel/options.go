package kernel

// Need is a build option that a guest kernel needs, or is better with.
type Need struct {
	Option string `json:"option"`
	// Module that the option builds when it is m; empty for one that cannot be a
	// module or whose module nothing loads by name.
	Module string `json:"module,omitempty"`
	// Optional options cost a feature, not the boot.
	Optional bool `json:"optional,omitempty"`
	// Why in a few words.
	Why string `json:"why"`
}

// vmNeeds is what a kernel needs to run in the microVM.
var vmNeeds = []Need{
	{Option: "CONFIG_64BIT", Why: "the CPU is entered in long mode"},
	{Option: "CONFIG_BLK_DEV_INITRD", Why: "the agent comes in the initramfs"},
	{Option: "CONFIG_BINFMT_ELF", Why: "the agent is an ELF executable"},
	{Option: "CONFIG_ACPI", Why: "announces CPUs and devices"},
	{Option: "CONFIG_VIRTIO_MMIO", Module: "virtio_mmio", Why: "transport of all devices"},
	{Option: "CONFIG_VIRTIO_BLK", Module: "virtio_blk", Why: "the image is a disk"},
	{Option: "CONFIG_EROFS_FS", Module: "erofs", Why: "the image's file system"},
	{Option: "CONFIG_OVERLAY_FS", Module: "overlay", Why: "makes the image writable"},
	{Option: "CONFIG_TMPFS", Why: "holds what is written"},
	{Option: "CONFIG_VSOCKETS", Module: "vsock", Why: "carries the agent's streams"},
	{Option: "CONFIG_VIRTIO_VSOCKETS", Module: "vmw_vsock_virtio_transport", Why: "carries the agent's streams"},
	{Option: "CONFIG_PROC_FS", Why: "/proc"},
	{Option: "CONFIG_SYSFS", Why: "/sys"},
	{Option: "CONFIG_DEVTMPFS", Why: "/dev"},
	{Option: "CONFIG_X86_IOPL_IOPERM", Why: "the agent marks phases by port"},
	{Option: "CONFIG_SERIAL_8250_CONSOLE", Optional: true, Why: "kernel log and panics"},
	{Option: "CONFIG_KVM_GUEST", Optional: true, Why: "kvm-clock: no TSC calibration"},
	{Option: "CONFIG_UNIX98_PTYS", Optional: true, Why: "terminals (-t)"},
	{Option: "CONFIG_EROFS_FS_XATTR", Optional: true, Why: "extended attributes"},
	{Option: "CONFIG_TMPFS_XATTR", Optional: true, Why: "extended attributes"},
	{Option: "CONFIG_HW_RANDOM_VIRTIO", Module: "virtio_rng", Optional: true, Why: "entropy from the host"},
}

// labNeeds is what the lab's kernel needs beyond that.
var labNeeds = []Need{
	{Option: "CONFIG_KVM_AMD", Module: "kvm_amd", Why: "/dev/kvm in the lab"},
	{Option: "CONFIG_VIRTIO_CONSOLE", Module: "virtio_console", Why: "carries the agent's streams"},
	{Option: "CONFIG_CGROUPS", Why: "limits of containers"},
	{Option: "CONFIG_SECCOMP_FILTER", Why: "containers"},
	{Option: "CONFIG_USER_NS", Why: "containers without root"},
	{Option: "CONFIG_BLK_DEV_LOOP", Module: "loop", Optional: true, Why: "mounting images"},
	{Option: "CONFIG_TUN", Module: "tun", Optional: true, Why: "networks"},
}

// Option is a Need and what a kernel has for it.
type Option struct {
	Need
	// Value is "y" (built in), "m" (a module that is there), "no module" (m,
	// but its file is not there), "n", or "unknown" (no configuration).
	Value string `json:"value"`
}

// The values of an Option.
const (
	BuiltIn  = "y"
	AsModule = "m"
	NoModule = "no module"
	NotSet   = "n"
	Unknown  = "unknown"
)

// ok says whether the kernel has it.
func (o Option) ok() bool { return o.Value == BuiltIn || o.Value == AsModule }

// check compares needs with a configuration (nil when unknown) and the modules
// that are there (nil when there is no module directory).
func check(needs []Need, config configuration, modules *resolver) []Option {
	out := make([]Option, 0, len(needs))
	for _, n := range needs {
		o := Option{Need: n, Value: Unknown}
		switch {
		case config == nil:
		case config[n.Option] == "y":
			o.Value = BuiltIn
		case config[n.Option] == "m" && modules.has(n.Module):
			o.Value = AsModule
		case config[n.Option] == "m":
			o.Value = NoModule
		default:
			o.Value = NotSet
		}
		out = append(out, o)
	}
	return out
}

// has says whether the module directory has the module name; a name that is not
// known is given the benefit of the doubt.
func (r *resolver) has(name string) bool {
	if r == nil {
		return false
	}
	_, ok := r.paths[name]
	return ok || name == ""
}
