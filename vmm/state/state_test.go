package state

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/duplex-run/duplex/vmm/kvm"
	"github.com/duplex-run/duplex/vmm/serial"
	"github.com/duplex-run/duplex/vmm/virtio/mmio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// example is a machine with something in every field.
func example() *Machine {
	m := &Machine{Memory: 512 << 20, Slots: 9}
	for id := range byte(2) {
		c := CPU{CPUID: []kvm.CPUIDEntry{{Function: 1, EAX: 2, EBX: uint32(id) << 24}, {Function: 4, Index: 1, Flags: 1, ECX: 9, EDX: 8}}}
		c.MPState, c.TSCKHz = 1, 2_000_000
		for i, b := range [][]byte{c.Regs[:], c.Sregs[:], c.XSave[:], c.XCRs[:], c.DebugRegs[:], c.LAPIC[:], c.Events[:]} {
			b[i], b[len(b)/2] = byte(i+1), id+1
		}
		c.Events[63] = 7 // no zeros at its end
		c.MSRs = []kvm.MSR{{Index: 0x10, Data: 1 << 40}, {Index: 0x6e0, Data: 3}}
		m.CPUs = append(m.CPUs, c)
	}
	m.IRQ.Clock, m.IRQ.Chips[2][511] = 12345678901, 1
	m.Serial = serial.State{IER: 5, LCR: 3, MCR: 8, Scratch: 1, Divisor: [2]byte{1, 2}, FIFO: true, Received: []byte("hi"), Transmitted: true, Line: true}
	m.Devices = []mmio.State{{
		Type: 2, Status: 15, Features: 1 << 32, DeviceSel: 1, DriverSel: 1, QueueSel: 2, InterruptStatus: 1, ConfigGeneration: 4, Device: []byte{1},
		Queues: []mmio.QueueState{{
			Layout: queue.Layout{Size: 256, Desc: 0x1000, Avail: 0x2000, Used: 1 << 33}, Ready: true,
			State: queue.State{NextAvail: 65535, NextUsed: 65534, Signalled: 7, Muted: true},
		}},
	}, {Type: 4, Queues: []mmio.QueueState{}}}
	return m
}

func TestRoundTrip(t *testing.T) {
	want := example()
	got, err := Decode(want.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("another machine was decoded than was encoded")
	}
}

// Every machine that is cut short, or longer, or of another version is refused.
func TestDecodeRefuses(t *testing.T) {
	whole := example().Encode()
	for n := range len(whole) {
		if m, err := Decode(whole[:n]); !errors.Is(err, ErrFormat) {
			t.Fatalf("the first %d of %d bytes: %v, %v", n, len(whole), m, err)
		}
	}
	if _, err := Decode(append(bytes.Clone(whole), 0)); !errors.Is(err, ErrFormat) {
		t.Errorf("a byte too many: %v", err)
	}
	other := bytes.Clone(whole)
	other[len(magic)]++
	if _, err := Decode(other); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v", err)
	}
	other = bytes.Clone(whole)
	other[0]++
	if _, err := Decode(other); !errors.Is(err, ErrFormat) {
		t.Errorf("another magic: %v", err)
	}
	// The number of CPUs lies behind magic, version and size of the memory.
	huge := bytes.Clone(whole)
	copy(huge[len(magic)+4+8:], "\xff\xff\xff\xff")
	if _, err := Decode(huge); !errors.Is(err, ErrFormat) {
		t.Errorf("4 billion CPUs: %v", err)
	}
}

// Whatever is decoded is encoded to what decodes to the same.
func FuzzDecode(f *testing.F) {
	f.Add(example().Encode())
	f.Add((&Machine{}).Encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := Decode(p)
		if err != nil {
			return
		}
		again, err := Decode(m.Encode())
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Errorf("encoded again it is another: %v", err)
		}
	})
}
