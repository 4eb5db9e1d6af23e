package net

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	stdnet "net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/duplex-run/duplex/vmm/virtio"
)

// Feature bits (§5.1.3).
const (
	FeatureCsum      = 1 << 0
	FeatureGuestCsum = 1 << 1
	FeatureMTU       = 1 << 3
	FeatureMAC       = 1 << 5
	FeatureGuestTSO4 = 1 << 7
	FeatureGuestTSO6 = 1 << 8
	FeatureHostTSO4  = 1 << 11
	FeatureHostTSO6  = 1 << 12
	FeatureMrgRxbuf  = 1 << 15
	FeatureStatus    = 1 << 16
)

// The virtqueues (§5.1.2).
const (
	queueRX = 0 // to the guest
	queueTX = 1 // from the guest

	queueSize = 256
)

// Limiter bounds a direction of traffic. Take takes packets and their bytes and
// returns 0; or it takes nothing and returns how long to wait before asking
// again. *rate.Limiter is one; a nil *rate.Limiter in the interface is, too.
type Limiter interface {
	Take(packets, bytes int) time.Duration
}

// Options say what device to make.
type Options struct {
	// Backend is the network; the device closes it.
	Backend Backend
	// MAC is the guest's address, see RandomMAC; no group address, not zero.
	MAC [6]byte
	// MTU is the largest IP packet in bytes, 68 to 65535; 0 means 1500.
	MTU uint16
	// TX limits what the guest sends, RX what it gets; nil means no limit.
	TX, RX Limiter
}

// Stats count since the device was made.
type Stats struct {
	TXPackets, TXBytes uint64 // sent by the guest; bytes of frames
	TXDropped          uint64 // malformed, or refused by the backend
	RXPackets, RXBytes uint64 // received by the guest; bytes of frames
	RXDropped          uint64 // larger than the guest's buffers
}

// Device is the network device; it implements virtio.Device.
type Device struct {
	opts    Options
	conn    syscall.RawConn
	session atomic.Pointer[session]
	down    atomic.Bool // the backend is gone
	closing sync.Once

	txPackets, txBytes, txDropped atomic.Uint64
	rxPackets, rxBytes, rxDropped atomic.Uint64
}

// New makes a device. On error the backend is left to the caller.
func New(o Options) (*Device, error) {
	if o.Backend == nil {
		return nil, errors.New("virtio-net: no backend")
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.MTU < 68 {
		return nil, fmt.Errorf("virtio-net: MTU %d is below 68", o.MTU)
	}
	if o.MAC[0]&1 != 0 || o.MAC == [6]byte{} {
		return nil, fmt.Errorf("virtio-net: %s is not the address of one interface", stdnet.HardwareAddr(o.MAC[:]))
	}
	conn, err := o.Backend.File().SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("virtio-net: %w", err)
	}
	return &Device{opts: o, conn: conn}, nil
}

// RandomMAC makes a random locally administered address.
func RandomMAC() (mac [6]byte) {
	_, _ = rand.Read(mac[:]) // never fails
	mac[0] = mac[0]&^1 | 2
	return mac
}

// Type implements virtio.Device.
func (d *Device) Type() uint32 { return virtio.TypeNet }

// Features implements virtio.Device.
func (d *Device) Features() uint64 {
	return FeatureMAC | FeatureMTU | FeatureStatus | FeatureMrgRxbuf | d.opts.Backend.Offloads()&allOffloads
}

// QueueSizes implements virtio.Device: receive and transmit.
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize, queueSize} }

// ReadConfig implements virtio.Device: mac, status, max_virtqueue_pairs, mtu
// (§5.1.4).
func (d *Device) ReadConfig(offset uint64, p []byte) {
	var space [12]byte
	copy(space[:], d.opts.MAC[:])
	if !d.down.Load() {
		space[6] = 1 // VIRTIO_NET_S_LINK_UP
	}
	space[8] = 1
	binary.LittleEndian.PutUint16(space[10:], d.opts.MTU)
	virtio.ReadConfigSpace(space[:], offset, p)
}

// WriteConfig implements virtio.Device; nothing is writable.
func (d *Device) WriteConfig(uint64, []byte) {}

// Activate implements virtio.Device. Without both queues nothing can work.
func (d *Device) Activate(a virtio.Activation) error {
	if a.Queues[queueRX] == nil || a.Queues[queueTX] == nil {
		return errors.New("virtio-net: driver set up no receive or transmit queue")
	}
	b := d.opts.Backend
	if err := b.File().SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("virtio-net: %w", err)
	}
	if !d.down.Load() {
		if err := b.SetOffloads(offloads(a.Features)); err != nil {
			return fmt.Errorf("virtio-net: %w", err)
		}
	}
	s := newSession(d, a)
	d.session.Store(s)
	s.start()
	return nil
}

// offloads are the offload features without those that need another one which
// was not accepted (§5.1.3.1).
func offloads(features uint64) uint64 {
	if features&FeatureCsum == 0 {
		features &^= FeatureHostTSO4 | FeatureHostTSO6
	}
	if features&FeatureGuestCsum == 0 {
		features &^= FeatureGuestTSO4 | FeatureGuestTSO6
	}
	return features & allOffloads
}

// Kick implements virtio.Device.
func (d *Device) Kick(q int) {
	s := d.session.Load()
	if s == nil {
		return
	}
	switch q {
	case queueRX:
		s.rx.kick()
	case queueTX:
		s.tx.serve()
	}
}

// Reset implements virtio.Device. Packets under way are lost.
func (d *Device) Reset() {
	if s := d.session.Swap(nil); s != nil {
		s.halt()
		s.wait()
	}
}

// Close implements virtio.Device.
func (d *Device) Close() (err error) {
	d.Reset()
	d.closing.Do(func() { err = d.opts.Backend.Close() })
	return err
}

// Stats returns the counters; it may be called at any time.
func (d *Device) Stats() Stats {
	return Stats{
		TXPackets: d.txPackets.Load(), TXBytes: d.txBytes.Load(), TXDropped: d.txDropped.Load(),
		RXPackets: d.rxPackets.Load(), RXBytes: d.rxBytes.Load(), RXDropped: d.rxDropped.Load(),
	}
}

// Traffic is the bytes of the frames that the guest received and sent.
func (d *Device) Traffic() (in, out uint64) { return d.rxBytes.Load(), d.txBytes.Load() }

// session is the device between Activate and Reset.
type session struct {
	dev       *Device
	transport virtio.Transport
	features  uint64
	tx        *transmitter
	rx        *receiver

	stop    chan struct{} // closed by halt
	halting sync.Once
	running sync.WaitGroup
}

func newSession(d *Device, a virtio.Activation) *session {
	s := &session{dev: d, transport: a.Transport, features: a.Features, stop: make(chan struct{})}
	s.features = a.Features&^allOffloads | offloads(a.Features)
	s.tx = newTransmitter(s, a.Queues[queueTX])
	s.rx = newReceiver(s, a.Queues[queueRX])
	return s
}

func (s *session) start() {
	s.running.Go(s.tx.run)
	s.running.Go(s.rx.run)
}

// halt makes the goroutines end; wait waits for them and for kicks under way.
func (s *session) halt() {
	s.halting.Do(func() {
		close(s.stop)
		// Whoever waits in the poller returns now.
		_ = s.dev.opts.Backend.File().SetDeadline(time.Unix(1, 0))
	})
}

func (s *session) wait() {
	s.tx.end()
	s.running.Wait()
}

func (s *session) stopped() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// fail stops the device because its driver broke the rules.
func (s *session) fail(err error) {
	s.transport.Broken(err)
	s.halt()
}

// linkDown tells the guest that the backend is gone (§5.1.4).
func (s *session) linkDown() {
	if !s.dev.down.Swap(true) {
		s.transport.ConfigChanged()
	}
}

// pause waits; it is false when the session ended meanwhile.
func (s *session) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stop:
		return false
	}
}
