// Package serial is a 16550A UART, the port a Linux kernel prints its log to.
//
// Bytes the guest sends go to an io.Writer as they are; the transmitter is
// always ready. Input gives the guest input as fast as it takes it. Register
// names and bits are those of the PC16550D data sheet.
package serial

import (
	"io"
	"sync"
)

// Ports is how many I/O ports the device claims.
const Ports = 8

// Register offsets; the first two are the divisor latch while lcrDLAB is set.
const (
	regData = iota // RBR, THR
	regIER
	regIIR // FCR when written
	regLCR
	regMCR
	regLSR
	regMSR
	regScratch
)

const (
	ierReceive  = 1 << 0
	ierTransmit = 1 << 1
	ierStatus   = 1 << 2
	ierMask     = 0x0f

	iirNone     = 0x01
	iirTransmit = 0x02
	iirReceive  = 0x04
	iirStatus   = 0x06
	iirFIFO     = 0xc0

	fcrEnable    = 1 << 0
	fcrClearRecv = 1 << 1

	lcrDLAB = 1 << 7

	mcrDTR  = 1 << 0
	mcrRTS  = 1 << 1
	mcrOut1 = 1 << 2
	mcrOut2 = 1 << 3 // gates the interrupt line on a PC
	mcrLoop = 1 << 4
	mcrMask = 0x1f

	lsrData    = 1 << 0
	lsrOverrun = 1 << 1
	lsrEmpty   = 1<<5 | 1<<6 // holding register and transmitter empty

	msrCTS = 1 << 4
	msrDSR = 1 << 5
	msrRI  = 1 << 6
	msrDCD = 1 << 7

	fifoSize = 16
)

// Port is the UART. It implements bus.Handler and is safe for concurrent use.
type Port struct {
	out io.Writer
	irq func()

	mu           sync.Mutex
	ier, lcr     byte
	mcr, scratch byte
	divisor      [2]byte
	fifo         bool // FCR bit 0
	received     []byte
	overrun      bool
	transmitted  bool // THRE interrupt pending
	line         bool // level of the interrupt line

	backlog []byte     // input that does not fit yet
	room    *sync.Cond // of backlog
	closed  bool
}

// New returns a port in its reset state. out gets what the guest sends, nil
// discards it; its errors are ignored, as a UART has no way to tell. irq is
// called for each rising edge of the interrupt line, nil for none; it must not
// call back into the port.
func New(out io.Writer, irq func()) *Port {
	if out == nil {
		out = io.Discard
	}
	if irq == nil {
		irq = func() {}
	}
	s := &Port{out: out, irq: irq, divisor: [2]byte{12, 0}}
	s.room = sync.NewCond(&s.mu)
	return s
}

// Read answers a port read. The registers are a byte wide: of a wider access
// only the first byte means anything, and the rest reads as ones.
func (s *Port) Read(off uint64, p []byte) {
	for i := range p {
		p[i] = 0xff
	}
	if len(p) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p[0] = s.read(off)
	s.update()
}

func (s *Port) read(off uint64) byte {
	switch {
	case s.lcr&lcrDLAB != 0 && off <= regIER:
		return s.divisor[off]
	case off == regData:
		return s.receive()
	case off == regIER:
		return s.ier
	case off == regIIR:
		return s.identify()
	case off == regLCR:
		return s.lcr
	case off == regMCR:
		return s.mcr
	case off == regLSR:
		return s.lineStatus()
	case off == regMSR:
		return s.modemStatus()
	case off == regScratch:
		return s.scratch
	}
	return 0xff
}

// Write answers a port write; of a wide access only the first byte counts.
func (s *Port) Write(off uint64, p []byte) {
	if len(p) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(off, p[0])
	s.update()
}

func (s *Port) write(off uint64, v byte) {
	switch {
	case s.lcr&lcrDLAB != 0 && off <= regIER:
		s.divisor[off] = v
	case off == regData:
		s.send(v)
	case off == regIER:
		// Enabling the transmit interrupt with an empty transmitter raises it.
		s.transmitted = v&ierTransmit != 0 && (s.ier&ierTransmit == 0 || s.transmitted)
		s.ier = v & ierMask
	case off == regIIR:
		s.fifo = v&fcrEnable != 0
		if v&fcrClearRecv != 0 || !s.fifo {
			s.received = s.received[:0]
		}
		s.fill()
	case off == regLCR:
		s.lcr = v
	case off == regMCR:
		s.mcr = v & mcrMask
	case off == regScratch:
		s.scratch = v
	}
}

// Input gives the guest input. What it has not taken waits, Backlog bytes at
// most; then Write does, until the guest takes some or Close is called:
// io.ErrClosedPipe.
func (s *Port) Input(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := 0
	for done < len(p) {
		for len(s.backlog) >= Backlog && !s.closed {
			s.room.Wait()
		}
		if s.closed {
			return done, io.ErrClosedPipe
		}
		n := min(len(p)-done, Backlog-len(s.backlog))
		s.backlog = append(s.backlog, p[done:done+n]...)
		done += n
		s.fill()
		s.update()
	}
	return done, nil
}

// Backlog is how many bytes of input wait for the guest.
const Backlog = 4096

// Close ends an Input that waits, and takes no more input. It is idempotent; the
// guest notices nothing.
func (s *Port) Close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.room.Broadcast()
}

// fill moves what waits to the receiver, as far as there is room.
func (s *Port) fill() {
	n := min(len(s.backlog), s.capacity()-len(s.received))
	if n <= 0 {
		return
	}
	s.received = append(s.received, s.backlog[:n]...)
	s.backlog = append(s.backlog[:0], s.backlog[n:]...)
	s.room.Broadcast()
}

func (s *Port) capacity() int {
	if s.fifo {
		return fifoSize
	}
	return 1
}

func (s *Port) push(p ...byte) {
	n := min(max(s.capacity()-len(s.received), 0), len(p))
	s.received = append(s.received, p[:n]...)
	s.overrun = s.overrun || n < len(p)
}

func (s *Port) receive() byte {
	if len(s.received) == 0 {
		return 0
	}
	v := s.received[0]
	s.received = append(s.received[:0], s.received[1:]...)
	s.fill()
	return v
}

func (s *Port) send(v byte) {
	if s.mcr&mcrLoop != 0 {
		s.push(v)
	} else {
		_, _ = s.out.Write([]byte{v})
	}
	s.transmitted = s.ier&ierTransmit != 0
}

func (s *Port) lineStatus() byte {
	v := byte(lsrEmpty)
	if len(s.received) > 0 {
		v |= lsrData
	}
	if s.overrun {
		v |= lsrOverrun
		s.overrun = false
	}
	return v
}

// modemStatus says that a modem is there, or in loop-back mode repeats MCR.
func (s *Port) modemStatus() byte {
	if s.mcr&mcrLoop == 0 {
		return msrCTS | msrDSR | msrDCD
	}
	var v byte
	for _, b := range []struct{ mcr, msr byte }{
		{mcrRTS, msrCTS}, {mcrDTR, msrDSR}, {mcrOut1, msrRI}, {mcrOut2, msrDCD},
	} {
		if s.mcr&b.mcr != 0 {
			v |= b.msr
		}
	}
	return v
}

// pending is the interrupt of highest priority, without the FIFO bits.
func (s *Port) pending() byte {
	switch {
	case s.ier&ierStatus != 0 && s.overrun:
		return iirStatus
	case s.ier&ierReceive != 0 && len(s.received) > 0:
		return iirReceive
	case s.ier&ierTransmit != 0 && s.transmitted:
		return iirTransmit
	}
	return iirNone
}

// identify reads IIR; that acknowledges a transmit interrupt.
func (s *Port) identify() byte {
	v := s.pending()
	if v == iirTransmit {
		s.transmitted = false
	}
	if s.fifo {
		v |= iirFIFO
	}
	return v
}

func (s *Port) update() {
	line := s.mcr&mcrOut2 != 0 && s.mcr&mcrLoop == 0 && s.pending() != iirNone
	if line && !s.line {
		s.irq()
	}
	s.line = line
}
