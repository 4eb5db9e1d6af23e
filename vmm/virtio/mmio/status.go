package mmio

import (
	"fmt"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// setStatus runs the state machine of §3.1.1: ACKNOWLEDGE, DRIVER, FEATURES_OK,
// DRIVER_OK, each on top of those before; zero resets.
func (t *Transport) setStatus(v uint32) {
	v &^= statusNeedsReset // the device's to set
	if v == 0 {
		t.reset()
		return
	}
	if t.status&^v != 0 {
		t.Broken(fmt.Errorf("clear status bits %#x: %w", t.status&^v, ErrSequence))
		return
	}
	added := v &^ t.status
	if missing := prerequisites(added) &^ v; missing != 0 {
		t.Broken(fmt.Errorf("set status %#x without %#x: %w", v, missing, ErrSequence))
		return
	}
	if added&statusFeaturesOK != 0 && !t.featuresFine() {
		v &^= statusFeaturesOK // the driver reads it back and gives up (§3.1.1, step 6)
		if added&statusDriverOK != 0 {
			t.Broken(fmt.Errorf("set DRIVER_OK with features %#x: %w", t.accepted, ErrSequence))
			return
		}
	}
	t.status = v
	if added&statusDriverOK != 0 && !t.broken.Load() {
		t.activate()
	}
}

// prerequisites are the status bits that must be set with or before those added.
func prerequisites(added uint32) uint32 {
	switch {
	case added&statusDriverOK != 0:
		return statusAcknowledge | statusDriver | statusFeaturesOK
	case added&statusFeaturesOK != 0:
		return statusAcknowledge | statusDriver
	case added&statusDriver != 0:
		return statusAcknowledge
	default:
		return 0
	}
}

func (t *Transport) featuresFine() bool {
	return t.accepted&^t.offered == 0 && t.accepted&virtio.FeatureVersion1 != 0
}

func (t *Transport) activate() {
	queues := make([]*queue.Queue, len(t.queues))
	for i := range t.queues {
		queues[i] = t.queues[i].ready
	}
	err := t.dev.Activate(virtio.Activation{Features: t.accepted, Queues: queues, Transport: t, Memory: t.mem})
	if err != nil {
		t.Broken(fmt.Errorf("activate: %w", err))
	}
}

// reset brings everything but Err back to the beginning. It returns when the
// device has stopped, so the status reads zero only then (§2.4.1).
func (t *Transport) reset() {
	t.dev.Reset()
	t.status, t.accepted = 0, 0
	t.deviceSel, t.driverSel, t.qSel = 0, 0, 0
	clear(t.queues)
	t.broken.Store(false)
	t.pending.Store(0)
}
