package microvm

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
	"github.com/duplex-run/duplex/vmm/virtio/fs"
)

// Hardware is a machine as plain data: `duplex boot` makes it from its flags, and
// Runner from a workload.
type Hardware struct {
	Kernel  string // path of a bzImage or vmlinux
	Initrd  string // path, "" for none
	Cmdline string // all of the kernel's command line
	Memory  uint64 // bytes, a multiple of 4096
	// CPUs is the processor time the guest may use, in processors. It has that
	// many vCPUs, rounded up.
	CPUs     float64
	Disks    []Disk
	Networks []Network
	Shares   []Share
	// Vsock is the path of a Unix socket that connects to the guest's ports, as
	// Firecracker's does; see vsock.Bridge. "" for none.
	Vsock string
	// Console adds the virtio console hvc0.
	Console bool
	// Balloon adds a memory balloon: memory that the guest frees goes back to the
	// host.
	Balloon bool
	// Slots are places for devices that only a restored machine has: networks and
	// shares.
	Slots int
}

// Disk is a virtio block device.
type Disk struct {
	Path     string
	ID       string // serial number, 20 bytes at most
	ReadOnly bool
	Direct   bool // past the host's page cache
	Queues   int  // 0 means 1
	// BytesPerSecond and OpsPerSecond limit the disk; 0 is no limit.
	BytesPerSecond, OpsPerSecond uint64
}

// Network is a virtio network device.
type Network struct {
	// Tap is the TAP interface it is; "" for the user-mode network, or the bridge.
	Tap string
	// Bridge has Runner put it on the bridge of package network/bridge.
	Bridge bool
	// File is an open descriptor of that TAP interface, taken over; nil opens it.
	File *os.File `json:"-"`
	// Guest is what the agent is told of a TAP interface instead of Address, Gateway
	// and DNS; may be nil.
	Guest *agentproto.Network `json:"-"`
	// MAC is the guest's address; nil picks one.
	MAC net.HardwareAddr
	// Publish are ports of the host that lead to the guest, for the user-mode
	// network and the bridge: [IP:]PORT:PORT[/udp].
	Publish []string
	// Address, Gateway and DNS are what the agent gives the guest's interface on
	// a TAP device; the user-mode network has a plan of its own.
	Address      netip.Prefix
	Gateway, DNS netip.Addr
	// BytesPerSecond and PacketsPerSecond limit each direction; 0 is no limit.
	BytesPerSecond, PacketsPerSecond uint64
}

// Share is a directory of the host that the guest mounts with `mount -t virtiofs`.
type Share struct {
	Dir, Tag string
	ReadOnly bool
}

// vcpus is the number of vCPUs, and limit their time, 0 for none.
func (h *Hardware) vcpus() (n int, limit float64) {
	n = max(1, int(math.Ceil(h.CPUs)))
	if h.CPUs > 0 && h.CPUs < float64(n) {
		limit = h.CPUs
	}
	return n, limit
}

// validate finds what is wrong with the numbers and names; files are looked at
// when they are opened.
func (h *Hardware) validate() error {
	bad := func(remedy, format string, args ...any) error {
		return &workload.Error{Op: "make the microVM", Err: fmt.Errorf(format, args...), Remedy: remedy}
	}
	if n, _ := h.vcpus(); n > vmm.MaxCPUs || h.CPUs < 0 || math.IsNaN(h.CPUs) {
		return bad("Give a smaller --cpus.", "%v CPUs asked for, a microVM has %d at most", h.CPUs, vmm.MaxCPUs)
	}
	if n := h.devices() + h.Slots; n > vmm.MaxDevices {
		return bad("Leave some out.", "%d devices, at most %d fit", n, vmm.MaxDevices)
	}
	var tags []string
	for _, s := range h.Shares {
		switch {
		case s.Tag == "" || len(s.Tag) > fs.MaxTag:
			return bad("", "share %s: a tag has 1 to %d bytes", s.Dir, fs.MaxTag)
		case strings.ContainsAny(s.Tag, "\x00\n"):
			return bad("", "share %s: the tag %q holds control characters", s.Dir, s.Tag)
		case slices.Contains(tags, s.Tag):
			return bad("Give each share a tag of its own.", "two shares have the tag %q", s.Tag)
		}
		tags = append(tags, s.Tag)
	}
	for _, n := range h.Networks {
		switch {
		case n.MAC != nil && (len(n.MAC) != 6 || n.MAC[0]&1 != 0):
			return bad("", "%v is not the MAC address of an interface", n.MAC)
		case n.Tap != "" && len(n.Publish) > 0:
			return bad("Use the user-mode network, or route to the guest.", "ports cannot be published through the TAP interface %s", n.Tap)
		}
	}
	return nil
}

// devices is the number of virtio devices.
func (h *Hardware) devices() int {
	n := len(h.Disks) + len(h.Networks) + len(h.Shares) + 1 // the entropy device
	for _, has := range []bool{h.Vsock != "", h.Console, h.Balloon} {
		if has {
			n++
		}
	}
	return n
}
