package balloon_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/balloon"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// silent is a Transport that nobody listens to.
type silent struct{ t *testing.T }

func (silent) Interrupt()         {}
func (silent) ConfigChanged()     {}
func (s silent) Broken(err error) { s.t.Error(err) }

// mapped is a balloon whose guest has mapped memory, as a VM has it.
type mapped struct {
	t   *testing.T
	mem *memory.Memory
	dev *balloon.Device
}

const mib = 1 << 20

// area is where queue q has its rings.
func area(q int) memory.GPA { return memory.GPA(q * 0x4000) }

func startMapped(t *testing.T) *mapped {
	mem, err := memory.New(32 * mib)
	if err != nil {
		t.Fatal(err)
	}
	dev := balloon.New(balloon.Options{})
	t.Cleanup(func() {
		_ = dev.Close()
		_ = mem.Close()
	})
	a := virtio.Activation{Features: dev.Features() | virtio.FeatureVersion1, Queues: make([]*queue.Queue, 5),
		Transport: silent{t}, Memory: mem}
	for i := range a.Queues {
		l := queue.Layout{Size: 8, Desc: area(i), Avail: area(i) + 0x1000, Used: area(i) + 0x2000}
		if a.Queues[i], err = queue.New(mem, l, 8, a.Features); err != nil {
			t.Fatal(err)
		}
	}
	if err := dev.Activate(a); err != nil {
		t.Fatal(err)
	}
	return &mapped{t, mem, dev}
}

// offer makes one buffer available in a queue, and has the device use it.
func (m *mapped) offer(q int, addr memory.GPA, n uint32, flags uint16) {
	m.t.Helper()
	desc := binary.LittleEndian.AppendUint64(nil, uint64(addr))
	desc = binary.LittleEndian.AppendUint32(desc, n)
	desc = binary.LittleEndian.AppendUint16(desc, flags)
	if err := errors.Join(m.mem.WriteAt(desc, area(q)), m.mem.StoreUint16(area(q)+0x1002, 1)); err != nil {
		m.t.Fatal(err)
	}
	m.dev.Kick(q)
	if used, err := m.mem.LoadUint16(area(q) + 0x2002); used != 1 || err != nil {
		m.t.Fatalf("queue %d: used index %d, %v", q, used, err)
	}
}

func (m *mapped) resident() uint64 {
	m.t.Helper()
	n, err := m.mem.Resident()
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// Inflating and reporting give the host its memory back.
func TestHostMemoryComesBack(t *testing.T) {
	m := startMapped(t)
	all, _ := m.mem.Slice(0, 32*mib)
	for i := 0; i < len(all); i += page {
		all[i]++ // touched
	}
	for q := range 5 {
		clear(all[area(q):][:0x4000])
	}
	all[16*mib-1], all[20*mib], all[24*mib-1] = 1, 1, 1
	for n := range uint32(8 * mib / page) {
		binary.LittleEndian.PutUint32(all[mib+4*n:], 8*mib/page+n)
	}
	before := m.resident()
	m.offer(inflateQ, mib, 4*8*mib/page, 0)
	if got := before - m.resident(); got != 8*mib {
		t.Errorf("inflating by 8 MiB gave %d bytes back", got)
	}
	before = m.resident()
	m.offer(reportQ, 20*mib+page, 4*mib-page, 2)
	if got := before - m.resident(); got != 4*mib-page {
		t.Errorf("reporting 4 MiB but a page gave %d bytes back", got)
	}
	if all[16*mib-1] != 0 || all[20*mib] != 1 || all[24*mib-1] != 0 {
		t.Error("other memory than reported went away")
	}
}
