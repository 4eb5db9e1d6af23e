package vsock_test

import (
	"testing"

	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

func TestAttacks(t *testing.T) { v.Attacks(t, echoing, []int{1}, echoes) }
