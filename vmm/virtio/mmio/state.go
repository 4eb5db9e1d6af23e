package mmio

import (
	"errors"
	"fmt"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// State is a transport's registers and queues, and its device's own state, as
// plain data.
type State struct {
	Type                              uint32 // of the device
	Status                            uint32
	Features                          uint64 // accepted
	DeviceSel, DriverSel, QueueSel    uint32
	InterruptStatus, ConfigGeneration uint32
	Queues                            []QueueState
	Device                            []byte
}

// QueueState is one virtqueue.
type QueueState struct {
	Layout queue.Layout
	Ready  bool
	queue.State
}

// Errors of Save and Restore.
var (
	// ErrUnsaved reports a device that cannot be saved, or not in its state.
	ErrUnsaved = errors.New("the device cannot be saved")
	// ErrState reports a State that no transport of the device can be in.
	ErrState = errors.New("virtio device: impossible state")
)

// Save ends the device's work, but not the requests it has taken, and returns its
// state. The device is of no use afterwards. Precondition: the driver does
// nothing meanwhile.
func (t *Transport) Save() (*State, error) {
	dev, ok := t.dev.(virtio.Saver)
	if !ok {
		return nil, ErrUnsaved
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	own, err := dev.Save()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsaved, err)
	}
	if t.broken.Load() {
		return nil, fmt.Errorf("%w: its driver broke the rules: %w", ErrUnsaved, t.Err())
	}
	s := &State{
		Type: t.dev.Type(), Status: t.status, Features: t.accepted,
		DeviceSel: t.deviceSel, DriverSel: t.driverSel, QueueSel: t.qSel,
		InterruptStatus: t.pending.Load(), ConfigGeneration: t.generation.Load(), Device: own,
	}
	for _, q := range t.queues {
		saved := QueueState{Layout: q.layout, Ready: q.ready != nil}
		if q.ready != nil {
			saved.State = q.ready.State()
		}
		s.Queues = append(s.Queues, saved)
	}
	return s, nil
}

// Restore gives a new transport and its new device the state of others. An
// interrupt that the driver has not acknowledged is raised anew; the caller kicks
// every queue, as a notification may have been lost.
func (t *Transport) Restore(s *State) error {
	dev, ok := t.dev.(virtio.Saver)
	if !ok {
		return ErrUnsaved
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.fits(s); err != nil {
		return err
	}
	t.status, t.accepted = s.Status, s.Features
	t.deviceSel, t.driverSel, t.qSel = s.DeviceSel, s.DriverSel, s.QueueSel
	t.pending.Store(s.InterruptStatus)
	t.generation.Store(s.ConfigGeneration)
	queues := make([]*queue.Queue, len(t.queues))
	for i, q := range s.Queues {
		t.queues[i].layout = q.Layout
		if !q.Ready {
			continue
		}
		ready, err := queue.Restore(t.mem, q.Layout, t.sizes[i], t.accepted, q.State)
		if err != nil {
			return fmt.Errorf("queue %d: %w", i, err)
		}
		t.queues[i].ready, queues[i] = ready, ready
	}
	var active *virtio.Activation
	if t.status&statusDriverOK != 0 {
		active = &virtio.Activation{Features: t.accepted, Queues: queues, Transport: t, Memory: t.mem}
	}
	if err := dev.Restore(s.Device, active); err != nil {
		return err
	}
	if t.pending.Load() != 0 {
		t.interrupt()
	}
	return nil
}

// fits says whether the state machine of §3.1.1 can come to s with this device.
func (t *Transport) fits(s *State) error {
	const all = statusAcknowledge | statusDriver | statusFeaturesOK | statusDriverOK | statusFailed
	agreed := s.Status&statusFeaturesOK != 0
	switch {
	case s.Type != t.dev.Type() || len(s.Queues) != len(t.queues):
		return fmt.Errorf("%w: type %d with %d queues for type %d with %d", ErrState, s.Type, len(s.Queues), t.dev.Type(), len(t.queues))
	case s.Status&^uint32(all) != 0 || prerequisites(s.Status)&^s.Status != 0:
		return fmt.Errorf("%w: status %#x", ErrState, s.Status)
	case agreed && (s.Features&^t.offered != 0 || s.Features&virtio.FeatureVersion1 == 0):
		return fmt.Errorf("%w: features %#x of %#x", ErrState, s.Features, t.offered)
	case s.InterruptStatus&^(interruptUsed|interruptConfig) != 0:
		return fmt.Errorf("%w: interrupt status %#x", ErrState, s.InterruptStatus)
	}
	for i, q := range s.Queues {
		if q.Ready && !agreed {
			return fmt.Errorf("%w: queue %d is ready in status %#x", ErrState, i, s.Status)
		}
	}
	return nil
}
