package rng_test

import (
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/rng"
	"github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

func TestAttacks(t *testing.T) {
	virtqtest.Attacks(t, func(testing.TB) virtio.Device { return rng.New() }, []int{0}, works)
}
