package fs

import (
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// TestRingAttacks are those that every device has to stand.
func TestRingAttacks(t *testing.T) {
	dir, canary := tree(t)
	v.Attacks(t, func(tb testing.TB) virtio.Device { return openShare(tb, dir) }, []int{queueHiprio, queueRequest},
		func(tb testing.TB, _ *v.Driver) { checkCanary(tb, canary) })
}
