package trace

import (
	"encoding/binary"
	"fmt"
)

// Kind says what a record is: an exit reason of KVM (kvm_run.exit_reason), or
// one of the constants here.
type Kind uint8

// The kinds that are no exits.
const (
	Mark    Kind = 0xf0 // the guest wrote Addr to the marks port
	Event   Kind = 0xf1 // the machine reached step Addr of its way up
	Dropped Kind = 0xf2 // Addr records were not written: the file was full
)

// Record is one exit.
type Record struct {
	Time  uint64 // nanoseconds since Header.Start
	Addr  uint64 // port, guest physical address, or value
	Host  uint32 // nanoseconds of handling; saturates
	Kind  Kind
	Write bool
	Size  uint8 // bytes of one access
	VCPU  uint8
	Count uint32 // accesses
	Value uint32 // the first bytes written
}

// recordSize is that of a record in the file, in bytes.
const recordSize = 32

func (r *Record) put(b []byte) {
	_ = b[recordSize-1]
	binary.LittleEndian.PutUint64(b[0:], r.Time)
	binary.LittleEndian.PutUint64(b[8:], r.Addr)
	binary.LittleEndian.PutUint32(b[16:], r.Host)
	b[20], b[21], b[22], b[23] = byte(r.Kind), 0, r.Size, r.VCPU
	if r.Write {
		b[21] = 1
	}
	binary.LittleEndian.PutUint32(b[24:], r.Count)
	binary.LittleEndian.PutUint32(b[28:], r.Value)
}

func (r *Record) get(b []byte) {
	_ = b[recordSize-1]
	*r = Record{
		Time: binary.LittleEndian.Uint64(b[0:]), Addr: binary.LittleEndian.Uint64(b[8:]),
		Host: binary.LittleEndian.Uint32(b[16:]), Kind: Kind(b[20]), Write: b[21] != 0,
		Size: b[22], VCPU: b[23],
		Count: binary.LittleEndian.Uint32(b[24:]), Value: binary.LittleEndian.Uint32(b[28:]),
	}
}

// Device is a range of ports or addresses with a name.
type Device struct {
	Name string `json:"name"`
	Port bool   `json:"port,omitempty"` // I/O ports; else guest physical addresses
	Base uint64 `json:"base"`
	Size uint64 `json:"size"`
}

// Header is the first line of a trace file.
type Header struct {
	Magic   string `json:"magic"`   // "duplex-trace"
	Version int    `json:"version"` // 1
	VCPUs   int    `json:"vcpus"`
	// Start is the time of record time 0: CLOCK_MONOTONIC_RAW, nanoseconds.
	Start int64 `json:"start_ns"`
	// Limit is the most bytes of records that were written.
	Limit int64 `json:"limit"`
	// Devices, Reasons and Events give names to what the records hold.
	Devices []Device          `json:"devices,omitempty"`
	Reasons map[Kind]string   `json:"reasons,omitempty"`
	Events  []string          `json:"events,omitempty"`
	Marks   map[uint64]string `json:"marks,omitempty"`
}

const (
	magic   = "duplex-trace"
	version = 1
	// DefaultLimit is that of a Header without one, in bytes: 32 Mi exits.
	DefaultLimit = 1 << 30
	// maxHeader bounds the first line of a file that is read.
	maxHeader = 1 << 20
)

// Device is the name of the device that an exit was about, and "" for an exit
// about none that is known; port and address exits are told apart by the reason.
func (h *Header) Device(r *Record) string {
	if r.Kind != exitIO && r.Kind != exitMMIO {
		return ""
	}
	for _, d := range h.Devices {
		if d.Port == (r.Kind == exitIO) && r.Addr >= d.Base && r.Addr-d.Base < d.Size {
			return d.Name
		}
	}
	return ""
}

// Reason is the name of an exit's reason.
func (h *Header) Reason(r *Record) string { return h.reason(r.Kind) }

// where names the register that a record is about: "blk0+0x50", "port 0x3f8".
func (h *Header) where(r *Record, port bool) string {
	for _, d := range h.Devices {
		if d.Port == port && r.Addr >= d.Base && r.Addr-d.Base < d.Size {
			if d.Size == 1 {
				return d.Name
			}
			return fmt.Sprintf("%s+%#x", d.Name, r.Addr-d.Base)
		}
	}
	if port {
		return fmt.Sprintf("port %#x", r.Addr)
	}
	return fmt.Sprintf("address %#x", r.Addr)
}

func (h *Header) reason(k Kind) string {
	if s, ok := h.Reasons[k]; ok {
		return s
	}
	return fmt.Sprintf("exit %d", k)
}

// step names a mark or an event.
func (h *Header) step(r *Record) string {
	if r.Kind == Event {
		if r.Addr < uint64(len(h.Events)) {
			return h.Events[r.Addr]
		}
		return fmt.Sprintf("event %d", r.Addr)
	}
	if s, ok := h.Marks[r.Addr]; ok {
		return s
	}
	return fmt.Sprintf("mark %#x", r.Addr)
}
