package bootreport

import (
	"strings"

	"github.com/duplex-run/duplex/bootreport/klog"
)

// part is a part of the kernel, told by the names of its initcalls.
type part struct {
	prefix string
	what   string
	// how to do without it; "" when nothing but another kernel configuration helps.
	option string
}

// parts are looked up in order; names are those of Linux 6.1 to 6.12.
var parts = []part{
	{"populate_rootfs", "unpacking the initramfs", ""},
	{"init_kprobe_trace", "tracing: kprobe events", "CONFIG_KPROBE_EVENTS"},
	{"init_dynamic_event", "tracing: dynamic events", "CONFIG_DYNAMIC_EVENTS"},
	{"event_trace", "tracing: events", "CONFIG_FTRACE"},
	{"tracer_init_tracefs", "tracing: tracefs", "CONFIG_FTRACE"},
	{"trace_", "tracing", "CONFIG_FTRACE"},
	{"init_trace", "tracing", "CONFIG_FTRACE"},
	{"ftrace_", "tracing", "CONFIG_FTRACE"},
	{"inet6_init", "IPv6", "CONFIG_IPV6"},
	{"inet_init", "IPv4", ""},
	{"net_", "network core", ""},
	{"sock_init", "network core", ""},
	{"cubictcp", "the kernel's BTF, which TCP's congestion control is the first to read", "CONFIG_DEBUG_INFO_BTF"},
	{"init_blk_tracer", "tracing: block I/O", "CONFIG_BLK_DEV_IO_TRACE"},
	{"tcp_", "TCP", ""},
	{"xfrm", "IPsec", "CONFIG_XFRM"},
	{"acpi_", "ACPI", ""},
	{"ged_driver", "ACPI events", ""},
	{"pnp", "plug and play", "CONFIG_PNP"},
	{"pci", "PCI", "CONFIG_PCI"},
	{"vga_arb", "VGA arbitration", "CONFIG_VGA_ARB"},
	{"serial8250", "serial port", ""},
	{"univ8250", "serial port", ""},
	{"i8042", "PS/2 controller", "CONFIG_SERIO_I8042"},
	{"atkbd", "PS/2 keyboard", "CONFIG_KEYBOARD_ATKBD"},
	{"rtc", "real-time clock", "CONFIG_RTC_CLASS"},
	{"cmos", "real-time clock", "CONFIG_RTC_DRV_CMOS"},
	{"nvme", "NVMe", "CONFIG_BLK_DEV_NVME"},
	{"ata", "ATA", "CONFIG_ATA"},
	{"scsi", "SCSI", "CONFIG_SCSI"},
	{"usb", "USB", "CONFIG_USB_SUPPORT"},
	{"ext4", "ext4", "CONFIG_EXT4_FS"},
	{"erofs", "EROFS", ""},
	{"slab_sysfs", "slab caches in sysfs", "CONFIG_SLUB_SYSFS"},
	{"crypto_kdf108", "cryptography's self-tests", "cryptomgr.notests, CONFIG_CRYPTO"},
	{"crypto", "cryptography", "CONFIG_CRYPTO"},
	{"blake2s", "cryptography", ""},
	{"crc", "checksums", ""},
	{"raid6", "RAID 6 benchmarks", "CONFIG_RAID6_PQ_BENCHMARK"},
	{"load_system_certificate", "keys of module signatures", "CONFIG_SYSTEM_TRUSTED_KEYRING"},
	{"system_trusted_keyring", "keys of module signatures", "CONFIG_SYSTEM_TRUSTED_KEYRING"},
	{"integrity", "integrity measurement", "CONFIG_INTEGRITY"},
	{"init_ima", "integrity measurement", "CONFIG_IMA"},
	{"init_evm", "integrity measurement", "CONFIG_EVM"},
	{"aa_", "AppArmor", "CONFIG_SECURITY_APPARMOR"},
	{"apparmor", "AppArmor", "CONFIG_SECURITY_APPARMOR"},
	{"tomoyo", "TOMOYO", "CONFIG_SECURITY_TOMOYO"},
	{"kcompactd", "memory compaction", "CONFIG_COMPACTION"},
	{"hugetlb", "huge pages", "CONFIG_HUGETLBFS"},
	{"deferred", "deferred drivers", ""},
	{"blkdev", "block layer", ""},
	{"default_bdi", "block layer", ""},
	{"pty_init", "pseudo-terminals", ""},
	{"chr_dev_init", "character devices", ""},
	{"tty", "terminals", ""},
	{"virtio", "virtio", ""},
	{"rcu", "RCU", ""},
	{"watchdog", "watchdog", ""},
	{"perf", "performance events", "CONFIG_PERF_EVENTS"},
	{"thermal", "thermal management", "CONFIG_THERMAL"},
	{"cpuidle", "idle states", ""},
	{"cpufreq", "frequency scaling", "CONFIG_CPU_FREQ"},
	{"vsock", "vsock", ""},
	{"dquot", "disk quotas", "CONFIG_QUOTA"},
}

// partOf is what an initcall belongs to, or nil.
func partOf(name string) *part {
	for i := range parts {
		if strings.HasPrefix(name, parts[i].prefix) {
			return &parts[i]
		}
	}
	return nil
}

// owner says what a call belongs to.
func owner(c klog.Call) string {
	if c.Module != "" {
		return "module " + c.Module
	}
	if p := partOf(c.Name); p != nil {
		return p.what
	}
	return ""
}
