package serial

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
)

// rig is a port with its output and a count of its interrupts.
type rig struct {
	*Port
	out  bytes.Buffer
	irqs int
}

func newRig() *rig {
	r := &rig{}
	r.Port = New(&r.out, func() { r.irqs++ })
	return r
}

func (r *rig) in(off uint64) byte {
	var p [1]byte
	r.Read(off, p[:])
	return p[0]
}

func (r *rig) set(off uint64, v byte) { r.Write(off, []byte{v}) }

func TestTransmit(t *testing.T) {
	r := newRig()
	if v := r.in(regLSR); v != lsrEmpty {
		t.Errorf("LSR %#x, want an empty transmitter", v)
	}
	for _, b := range []byte("log\n") {
		r.set(regData, b)
	}
	if r.out.String() != "log\n" || r.irqs != 0 {
		t.Errorf("sent %q with %d interrupts", r.out.String(), r.irqs)
	}
}

func TestDivisorLatch(t *testing.T) {
	r := newRig()
	r.set(regLCR, lcrDLAB|3)
	r.set(regData, 1)
	r.set(regIER, 0x55)
	if lo, hi := r.in(regData), r.in(regIER); lo != 1 || hi != 0x55 {
		t.Errorf("divisor %#x %#x", lo, hi)
	}
	r.set(regLCR, 3)
	if ier := r.in(regIER); ier != 0 || r.out.Len() != 0 {
		t.Errorf("the divisor went to IER (%#x) or out (%q)", ier, r.out.String())
	}
}

// TestProbe does what Linux's autoconfig (drivers/tty/serial/8250) does to find
// out what the port is.
func TestProbe(t *testing.T) {
	r := newRig()
	r.set(regIER, 0xff)
	if v := r.in(regIER) & 0x0f; v != 0x0f {
		t.Errorf("IER keeps %#x of 0x0f", v)
	}
	r.set(regIER, 0)
	r.set(regMCR, mcrLoop|mcrOut2|mcrRTS)
	if v := r.in(regMSR) & 0xf0; v != 0x90 {
		t.Errorf("MSR in loop-back %#x, want 0x90", v)
	}
	r.set(regMCR, 0)
	r.set(regIIR, fcrEnable)
	if v := r.in(regIIR) >> 6; v != 3 {
		t.Errorf("IIR says FIFO type %d, want 3 (16550A)", v)
	}
	r.set(regScratch, 0x5a)
	if v := r.in(regScratch); v != 0x5a {
		t.Errorf("scratch register %#x", v)
	}
}

func TestTransmitInterrupt(t *testing.T) {
	r := newRig()
	r.set(regMCR, mcrOut2)
	r.set(regIER, ierTransmit)
	if r.irqs != 1 {
		t.Fatalf("%d interrupts after enabling, want 1", r.irqs)
	}
	if v := r.in(regIIR); v != iirTransmit {
		t.Errorf("IIR %#x", v)
	}
	if v := r.in(regIIR); v != iirNone {
		t.Errorf("IIR after it was acknowledged %#x", v)
	}
	r.set(regData, 'x')
	r.set(regData, 'y')
	if r.irqs != 2 {
		t.Errorf("%d interrupts, want 2: the line rose once more", r.irqs)
	}
	r.set(regIER, 0)
	if v := r.in(regIIR); v != iirNone {
		t.Errorf("IIR while disabled %#x", v)
	}
}

// What does not fit in the FIFO waits, and comes as the guest reads.
func TestInput(t *testing.T) {
	r := newRig()
	r.set(regIIR, fcrEnable)
	r.set(regMCR, mcrOut2)
	r.set(regIER, ierReceive)
	const text = "0123456789abcdef and more than a FIFO holds"
	if n, err := r.Input([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("took %d bytes: %v", n, err)
	}
	if r.irqs != 1 {
		t.Errorf("%d interrupts, want 1", r.irqs)
	}
	if v := r.in(regIIR) & 0x0f; v != iirReceive {
		t.Errorf("IIR %#x, want data", v)
	}
	var got []byte
	for r.in(regLSR)&lsrData != 0 {
		got = append(got, r.in(regData))
	}
	if string(got) != text {
		t.Errorf("received %q", got)
	}
	if v := r.in(regIIR) & 0x0f; v != iirNone {
		t.Errorf("IIR after all was read %#x", v)
	}
}

// A guest that reads nothing holds Input up once Backlog bytes wait, until Close.
func TestInputBlocks(t *testing.T) {
	r := newRig()
	done := make(chan int)
	go func() {
		n, err := r.Input(make([]byte, 2*Backlog))
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("ended by %v", err)
		}
		done <- n
	}()
	for r.waiting() < Backlog {
		runtime.Gosched()
	}
	r.Close()
	if n := <-done; n != Backlog+1 { // one is in the receiver
		t.Errorf("took %d bytes", n)
	}
	if n, err := r.Input([]byte("x")); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("after Close: %d, %v", n, err)
	}
}

func (r *rig) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.backlog)
}

// Loop-back can overrun the receiver, as on the real chip.
func TestOverrun(t *testing.T) {
	r := newRig()
	r.set(regIIR, fcrEnable)
	r.set(regMCR, mcrLoop)
	for range fifoSize + 1 {
		r.set(regData, 'x')
	}
	if v := r.in(regLSR); v != lsrEmpty|lsrData|lsrOverrun {
		t.Errorf("LSR %#x", v)
	}
	if v := r.in(regLSR); v != lsrEmpty|lsrData {
		t.Errorf("LSR again %#x", v)
	}
}

func TestLoopBack(t *testing.T) {
	r := newRig()
	r.set(regMCR, mcrLoop)
	r.set(regData, 'x')
	if v := r.in(regData); v != 'x' || r.out.Len() != 0 {
		t.Errorf("looped back %q, sent %q", v, r.out.String())
	}
	r.set(regData, '1')
	r.set(regData, '2')
	if v := r.in(regLSR); v&lsrOverrun == 0 {
		t.Errorf("LSR %#x: no overrun of the one-byte receiver", v)
	}
	r.set(regIIR, fcrEnable|fcrClearRecv)
	if v := r.in(regLSR); v&lsrData != 0 {
		t.Errorf("LSR %#x after the FIFO was cleared", v)
	}
}

func TestWideAccess(t *testing.T) {
	r := newRig()
	r.Write(regData, []byte{'a', 0xff, 0xff, 0xff})
	if r.out.String() != "a" {
		t.Errorf("sent %q", r.out.String())
	}
	p := make([]byte, 4)
	r.Read(regLSR, p)
	if !bytes.Equal(p, []byte{lsrEmpty, 0xff, 0xff, 0xff}) {
		t.Errorf("read % x", p)
	}
	r.Read(regLSR, nil)
	r.Write(regLSR, nil)
}

// FuzzPort does accesses as the input says: an offset, whether to read, a value;
// and gives the guest input when the direction says so.
func FuzzPort(f *testing.F) {
	f.Add([]byte{3, 0, 0x83, 0, 0, 1, 3, 0, 3, 0, 0, 'x', 5, 1, 0})
	f.Add([]byte{4, 0, 0x10, 0, 0, 'x', 0, 1, 0, 255, 1, 0, 255, 0, 0})
	f.Add([]byte{1, 2, 1, 2, 2, 1, 4, 2, 8, 0, 216, 'i', 0, 216, 'n', 0, 1, 0, 5, 1, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		r := newRig()
		sent := 0
		for ; len(ops) >= 3; ops = ops[3:] {
			p := bytes.Repeat(ops[2:3], int(ops[1]>>1)%9)
			switch {
			case ops[1] > 200:
				if r.waiting()+len(p) > Backlog {
					continue // it would wait for the guest
				}
				if n, err := r.Input(p); n != len(p) || err != nil {
					t.Fatalf("took %d of %d bytes: %v", n, len(p), err)
				}
			case ops[1]&1 == 1:
				r.Read(uint64(ops[0]), p)
			default:
				r.Write(uint64(ops[0]), p)
				sent++
			}
			if len(r.received) > fifoSize {
				t.Fatalf("%d bytes in the FIFO", len(r.received))
			}
		}
		if r.out.Len() > sent {
			t.Errorf("%d writes sent %d bytes", sent, r.out.Len())
		}
	})
}
