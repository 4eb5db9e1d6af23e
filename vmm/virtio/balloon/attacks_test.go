package balloon_test

import (
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/balloon"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

func TestAttacks(t *testing.T) {
	v.Attacks(t, func(testing.TB) virtio.Device { return balloon.New(balloon.Options{Pages: 10}) },
		[]int{inflateQ, deflateQ, statsQ, reportQ}, works)
}
