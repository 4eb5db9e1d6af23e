package kvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Counters are KVM's own counts of a vCPU, by the kernel's names ("exits",
// "halt_exits", "halt_wait_ns"): KVM_GET_STATS_FD, since Linux 5.14 (Documentation/
// virt/kvm/api.rst, 4.133). Counts are since the vCPU was made.
type Counters struct {
	fd   int
	at   map[string]int // offset of the value in data
	from int64          // where data begins in the file
	data []byte
}

// Layout of the file: struct kvm_stats_header, and struct kvm_stats_desc, whose
// name follows it.
const (
	statsHeader  = 24
	statsDesc    = 16
	maxStatsDesc = 4096
	maxStatsName = 256
)

var errStats = errors.New("unexpected layout")

// Counters opens the counts of the vCPU. Errors wrap ENOTTY on older kernels.
func (c *VCPU) Counters() (*Counters, error) {
	fd, err := ioctl(c.fd, reqGetStatsFD, 0)
	if err != nil {
		return nil, wrap("KVM_GET_STATS_FD", err)
	}
	s := &Counters{fd: fd, at: map[string]int{}}
	if err := s.describe(); err != nil {
		return nil, errors.Join(wrap("KVM_GET_STATS_FD", err), s.Close())
	}
	return s, nil
}

// describe reads which counts there are.
func (s *Counters) describe() error {
	head := make([]byte, statsHeader)
	if err := s.pread(head, 0); err != nil {
		return err
	}
	field := func(i int) int { return int(binary.NativeEndian.Uint32(head[4*i:])) }
	name, n, descs := field(1), field(2), field(4)
	s.from = int64(field(5))
	if name < 1 || name > maxStatsName || n < 1 || n > maxStatsDesc {
		return fmt.Errorf("%w: %d counts with names of %d bytes", errStats, n, name)
	}
	list := make([]byte, n*(statsDesc+name))
	if err := s.pread(list, int64(descs)); err != nil {
		return err
	}
	for ; len(list) > 0; list = list[statsDesc+name:] {
		size, offset := int(binary.NativeEndian.Uint16(list[6:])), int(binary.NativeEndian.Uint32(list[8:]))
		if size != 1 || offset > maxStatsDesc*8 { // histograms have more than one value
			continue
		}
		label, _, _ := bytes.Cut(list[statsDesc:statsDesc+name], []byte{0})
		s.at[string(label)] = offset
		if end := offset + 8; end > len(s.data) {
			s.data = make([]byte, end)
		}
	}
	return nil
}

func (s *Counters) pread(b []byte, off int64) error {
	n, err := unix.Pread(s.fd, b, off)
	if err == nil && n != len(b) {
		err = fmt.Errorf("%w: %d bytes at %d, want %d", errStats, n, off, len(b))
	}
	return err
}

// Read returns the counts as they are now. Not safe for concurrent use.
func (s *Counters) Read() (map[string]uint64, error) {
	if err := s.pread(s.data, s.from); err != nil {
		return nil, wrap("read KVM's counts", err)
	}
	out := make(map[string]uint64, len(s.at))
	for name, off := range s.at {
		out[name] = binary.NativeEndian.Uint64(s.data[off:])
	}
	return out, nil
}

// Close closes the file. It is idempotent.
func (s *Counters) Close() error { return closeFD(&s.fd) }
