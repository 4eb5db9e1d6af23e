package virtqtest

import (
	"encoding/binary"
	"time"

	"github.com/duplex-run/duplex/vmm/memory"
)

// Descriptor flags (§2.7.5).
const (
	FlagNext     = 1
	FlagWrite    = 2
	FlagIndirect = 4
)

// waitLimit bounds how long Wait waits for a device that says nothing.
const waitLimit = 10 * time.Second

// Desc is a raw descriptor (§2.7.5).
type Desc struct {
	Addr  memory.GPA
	Len   uint32
	Flags uint16
	Next  uint16
}

// Ring is the driver's end of a split virtqueue.
type Ring struct {
	Size              uint16
	Desc, Avail, Used memory.GPA

	d      *Driver
	free   []uint16
	chains map[uint16][]uint16 // descriptors of a chain by head
	avail  uint16              // next index to publish
	kicked uint16              // avail when NeedsKick last looked
	used   uint16              // next index to look at
}

func (r *Ring) clear() {
	r.d.Put(r.Avail, make([]byte, 6+2*int(r.Size)))
	r.d.Put(r.Used, make([]byte, 6+8*int(r.Size)))
	r.chains = map[uint16][]uint16{}
	for i := range r.Size {
		r.free = append(r.free, i)
	}
}

// Add makes a chain of bufs available and returns its head. The caller kicks.
func (r *Ring) Add(bufs ...Buf) uint16 {
	r.d.tb.Helper()
	if len(bufs) == 0 || len(bufs) > len(r.free) {
		r.d.tb.Fatalf("add a chain of %d buffers with %d descriptors free", len(bufs), len(r.free))
	}
	ids := append([]uint16(nil), r.free[:len(bufs)]...)
	r.free = r.free[len(bufs):]
	for i, b := range bufs {
		d := Desc{Addr: b.Addr, Len: b.Len}
		if b.Write {
			d.Flags |= FlagWrite
		}
		if i+1 < len(bufs) {
			d.Flags |= FlagNext
			d.Next = ids[i+1]
		}
		r.SetDesc(ids[i], d)
	}
	r.chains[ids[0]] = ids
	r.Publish(ids[0])
	return ids[0]
}

// AddIndirect makes a chain available that is one indirect descriptor.
func (r *Ring) AddIndirect(bufs ...Buf) uint16 {
	r.d.tb.Helper()
	table := r.d.Alloc(16 * uint64(len(bufs)))
	for i, b := range bufs {
		d := Desc{Addr: b.Addr, Len: b.Len}
		if b.Write {
			d.Flags |= FlagWrite
		}
		if i+1 < len(bufs) {
			d.Flags |= FlagNext
			d.Next = uint16(i + 1)
		}
		r.d.Put(table+16*memory.GPA(i), Encode(d))
	}
	if len(r.free) == 0 {
		r.d.tb.Fatal("no descriptor free")
	}
	head := r.free[0]
	r.free = r.free[1:]
	r.SetDesc(head, Desc{Addr: table, Len: 16 * uint32(len(bufs)), Flags: FlagIndirect})
	r.chains[head] = []uint16{head}
	r.Publish(head)
	return head
}

// SetDesc writes entry i of the descriptor table as it is.
func (r *Ring) SetDesc(i uint16, d Desc) {
	r.d.tb.Helper()
	r.d.Put(r.Desc+16*memory.GPA(i), Encode(d))
}

// Encode returns the descriptor as it lies in guest memory.
func Encode(d Desc) []byte {
	p := binary.LittleEndian.AppendUint64(nil, uint64(d.Addr))
	p = binary.LittleEndian.AppendUint32(p, d.Len)
	p = binary.LittleEndian.AppendUint16(p, d.Flags)
	return binary.LittleEndian.AppendUint16(p, d.Next)
}

// Publish puts head into the avail ring and advances its index.
func (r *Ring) Publish(head uint16) {
	r.d.tb.Helper()
	r.d.Put(r.Avail+4+2*memory.GPA(r.avail%r.Size), binary.LittleEndian.AppendUint16(nil, head))
	r.avail++
	r.SetAvail(r.avail)
}

// SetAvail writes the avail ring's index.
func (r *Ring) SetAvail(idx uint16) { r.store(r.Avail+2, idx) }

// SetAvailFlags writes the avail ring's flags.
func (r *Ring) SetAvailFlags(flags uint16) { r.store(r.Avail, flags) }

// SetUsedEvent writes used_event (§2.7.7).
func (r *Ring) SetUsedEvent(idx uint16) { r.store(r.Avail+4+2*memory.GPA(r.Size), idx) }

// UsedFlags reads the used ring's flags (§2.7.8).
func (r *Ring) UsedFlags() uint16 { return r.load(r.Used) }

// AvailEvent reads avail_event (§2.7.10).
func (r *Ring) AvailEvent() uint16 { return r.load(r.Used + 4 + 8*memory.GPA(r.Size)) }

// NeedsKick says whether the device wants a notification for what was published
// since the last call (§2.7.10), as a driver with VIRTIO_F_EVENT_IDX finds out.
func (r *Ring) NeedsKick() bool {
	r.d.tb.Helper()
	before := r.kicked
	r.kicked = r.avail
	return r.avail-r.AvailEvent()-1 < r.avail-before
}

// EnableInterrupt asks for an interrupt when the device uses the next element,
// and is false when it has done so already (§2.7.7).
func (r *Ring) EnableInterrupt() bool {
	r.d.tb.Helper()
	r.SetUsedEvent(r.used)
	return r.UsedIndex() == r.used
}

// UsedIndex reads the used ring's index.
func (r *Ring) UsedIndex() uint16 { return r.load(r.Used + 2) }

func (r *Ring) store(gpa memory.GPA, v uint16) {
	r.d.tb.Helper()
	if err := r.d.Mem.StoreUint16(gpa, v); err != nil {
		r.d.tb.Fatal(err)
	}
}

func (r *Ring) load(gpa memory.GPA) uint16 {
	r.d.tb.Helper()
	v, err := r.d.Mem.LoadUint16(gpa)
	if err != nil {
		r.d.tb.Fatal(err)
	}
	return v
}

// Next returns the next used element, if there is one, and frees its chain.
func (r *Ring) Next() (head uint16, written uint32, ok bool) {
	r.d.tb.Helper()
	if r.UsedIndex() == r.used {
		return 0, 0, false
	}
	var raw [8]byte
	if err := r.d.Mem.ReadAt(raw[:], r.Used+4+8*memory.GPA(r.used%r.Size)); err != nil {
		r.d.tb.Fatal(err)
	}
	r.used++
	head = uint16(binary.LittleEndian.Uint32(raw[0:]))
	r.free = append(r.free, r.chains[head]...)
	delete(r.chains, head)
	return head, binary.LittleEndian.Uint32(raw[4:]), true
}

// Wait returns the next used element; the test fails when none comes. It asks
// for an interrupt the way a driver with VIRTIO_F_EVENT_IDX does.
func (r *Ring) Wait() (head uint16, written uint32) {
	r.d.tb.Helper()
	limit := time.NewTimer(waitLimit)
	defer limit.Stop()
	for {
		r.SetUsedEvent(r.used)
		if head, written, ok := r.Next(); ok {
			return head, written
		}
		select {
		case <-r.d.irq:
			r.d.Acknowledge()
		case <-limit.C:
			r.d.tb.Fatalf("the device used nothing: status %#x, %v", r.d.Reg(RegStatus), r.d.Transport.Err())
		}
	}
}
