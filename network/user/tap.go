package user

import (
	"fmt"
	"os"

	vnet "github.com/duplex-run/duplex/vmm/virtio/net"
)

// Attach takes over f, a TAP device (IFF_NO_PI, IFF_VNET_HDR) in the network
// namespace of the guest, which is a container then, and serves it until its end.
func (s *Stack) Attach(f *os.File) error {
	tap, err := vnet.NewTAP(f)
	if err != nil {
		return fmt.Errorf("user network: %w", err)
	}
	// What the kernel there is to leave undone, and what it takes undone.
	if err := tap.SetOffloads(vnet.FeatureGuestCsum | vnet.FeatureGuestTSO4); err != nil {
		_ = tap.Close()
		return fmt.Errorf("user network: %w", err)
	}
	s.link.offloads.Store(vnet.FeatureGuestCsum | vnet.FeatureGuestTSO4)
	own := tap.File()
	return s.begin(own, func() { _ = s.serve(own) }) // its end is the namespace's
}
