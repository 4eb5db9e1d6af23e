package vmm

import (
	"fmt"

	"github.com/duplex-run/duplex/vmm/kvm"
	"github.com/duplex-run/duplex/vmm/serial"
	"github.com/duplex-run/duplex/vmm/trace"
	"github.com/duplex-run/duplex/vmm/virtio"
)

// beginTrace starts the trace, if there is one, with the names of what it holds.
func (v *VM) beginTrace() error {
	if v.cfg.Trace == nil {
		return nil
	}
	return v.cfg.Trace.Begin(func(h *trace.Header) {
		h.VCPUs = v.cfg.CPUs
		h.Events = []string{"created", "loaded", "entered"}
		h.Reasons = map[trace.Kind]string{}
		for r := range kvm.ExitReason(maxReason) {
			if r.Named() {
				h.Reasons[trace.Kind(r)] = r.String()
			}
		}
		h.Devices = append(h.Devices,
			trace.Device{Name: "i8042-data", Port: true, Base: portI8042Data, Size: 1},
			trace.Device{Name: "i8042-command", Port: true, Base: portI8042Command, Size: 1},
			trace.Device{Name: "marks", Port: true, Base: portMarks, Size: 1},
			trace.Device{Name: "serial", Port: true, Base: portSerial, Size: serial.Ports},
			trace.Device{Name: "sleep-control", Port: true, Base: portSleepControl, Size: 1})
		for i, w := range v.wires {
			h.Devices = append(h.Devices, trace.Device{
				Name: fmt.Sprintf("%s%d", deviceName(v.cfg.Devices[i].Type()), i), Base: w.base, Size: mmioSize,
			})
		}
	})
}

func deviceName(kind uint32) string {
	name, ok := map[uint32]string{
		virtio.TypeNet: "net", virtio.TypeBlock: "blk", virtio.TypeConsole: "console",
		virtio.TypeEntropy: "rng", virtio.TypeBalloon: "balloon", virtio.TypeVsock: "vsock", virtio.TypeFS: "fs",
	}[kind]
	if !ok {
		return fmt.Sprintf("virtio-%d-", kind)
	}
	return name
}
