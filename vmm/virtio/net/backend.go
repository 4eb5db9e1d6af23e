package net

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Backend is the host's side of the device: a network.
type Backend interface {
	// Offloads are the offload features the backend can serve, of those of this
	// package that name a checksum or segmentation.
	Offloads() uint64
	// SetOffloads says which of them the driver accepted. It may be called again.
	SetOffloads(features uint64) error
	// File is the descriptor, non-blocking and known to the runtime's poller: one
	// readv or writev is one packet, header first. The device sets its deadlines.
	File() *os.File
	// Close releases the descriptor.
	Close() error
}

// allOffloads are the offload features of this package.
const allOffloads = FeatureCsum | FeatureGuestCsum | FeatureHostTSO4 | FeatureHostTSO6 |
	FeatureGuestTSO4 | FeatureGuestTSO6

// Socket is a Backend on one end of a Unix socket pair (SOCK_SEQPACKET, or
// SOCK_DGRAM), whose other end is a network stack. The kernel's socket buffer
// bounds what is under way. The stack learns of the negotiated offloads by a
// message of OffloadMessage, and must send no offloaded packet before.
type Socket struct {
	f    *os.File
	told *uint64 // what the stack was told last
}

// NewSocket takes over f, which is closed on error too.
func NewSocket(f *os.File) (*Socket, error) {
	s, err := newSocket(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("network socket: %w", err)
	}
	return s, nil
}

func newSocket(f *os.File) (*Socket, error) {
	fd := int(f.Fd()) // leaves it blocking
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, err
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, err
	}
	if domain != unix.AF_UNIX || (kind != unix.SOCK_SEQPACKET && kind != unix.SOCK_DGRAM) {
		return nil, errors.New("not a Unix socket that keeps messages apart")
	}
	own, err := pollable(fd, f.Name())
	if err != nil {
		return nil, err
	}
	_ = f.Close()
	return &Socket{f: own}, nil
}

// pollable returns a duplicate of fd that the runtime's poller waits for.
func pollable(fd int, name string) (*os.File, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(own, true); err != nil {
		_ = unix.Close(own)
		return nil, err
	}
	f := os.NewFile(uintptr(own), name)
	if err := f.SetDeadline(time.Time{}); err != nil { // os.ErrNoDeadline: not in the poller
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Offloads implements Backend.
func (s *Socket) Offloads() uint64 { return allOffloads }

// SetOffloads implements Backend. A peer that takes no message within a second
// is an error.
func (s *Socket) SetOffloads(features uint64) error {
	features &= allOffloads
	if s.told != nil && *s.told == features {
		return nil
	}
	if err := s.f.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	msg := OffloadMessage(features)
	if _, err := s.f.Write(msg[:]); err != nil {
		return fmt.Errorf("tell the network stack of offloads: %w", err)
	}
	s.told = &features
	return s.f.SetWriteDeadline(time.Time{})
}

// File implements Backend.
func (s *Socket) File() *os.File { return s.f }

// Close implements Backend.
func (s *Socket) Close() error { return s.f.Close() }

// offloadMagic starts an OffloadMessage: "offl".
const offloadMagic = 0x6c66666f

// OffloadMessage is what a Socket sends before packets: the features that the
// driver accepted. With HeaderLen bytes it is too short for a packet.
func OffloadMessage(features uint64) [HeaderLen]byte {
	var p [HeaderLen]byte
	binary.LittleEndian.PutUint32(p[:], offloadMagic)
	binary.LittleEndian.PutUint64(p[4:], features)
	return p
}

// ParseOffloadMessage returns the features of an OffloadMessage, false when p is
// none.
func ParseOffloadMessage(p []byte) (features uint64, ok bool) {
	if len(p) != HeaderLen || binary.LittleEndian.Uint32(p) != offloadMagic {
		return 0, false
	}
	return binary.LittleEndian.Uint64(p[4:]) & allOffloads, true
}
