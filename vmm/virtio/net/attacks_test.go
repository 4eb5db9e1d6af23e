package net_test

import (
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// TestRingAttacks are those that every device has to stand.
func TestRingAttacks(t *testing.T) {
	v.Attacks(t, func(tb testing.TB) virtio.Device { dev, _ := socket(tb, nil); return dev }, []int{tx}, nil)
}
