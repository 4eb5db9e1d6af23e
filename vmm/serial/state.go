package serial

import (
	"errors"
	"slices"
)

// State is a Port's registers and what it has received, as plain data.
type State struct {
	IER, LCR, MCR, Scratch byte
	Divisor                [2]byte
	FIFO                   bool
	Received               []byte // at most 16
	Overrun                bool
	Transmitted            bool // a transmit interrupt is pending
	Line                   bool // level of the interrupt line
}

// State returns the port's state. Input that the guest has not taken is not part
// of it.
func (s *Port) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return State{
		IER: s.ier, LCR: s.lcr, MCR: s.mcr, Scratch: s.scratch, Divisor: s.divisor, FIFO: s.fifo,
		Received: slices.Clone(s.received), Overrun: s.overrun, Transmitted: s.transmitted, Line: s.line,
	}
}

// ErrState reports a State that no port can be in.
var ErrState = errors.New("serial port: impossible state")

// SetState gives a new port the state of another. An interrupt line that is high
// has an edge anew: the one before may have been lost on its way.
func (s *Port) SetState(t State) error {
	if t.IER&^ierMask != 0 || t.MCR&^mcrMask != 0 || len(t.Received) > fifoSize {
		return ErrState
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ier, s.lcr, s.mcr, s.scratch, s.divisor, s.fifo = t.IER, t.LCR, t.MCR, t.Scratch, t.Divisor, t.FIFO
	s.received = append(s.received[:0], t.Received...)
	s.overrun, s.transmitted, s.line = t.Overrun, t.Transmitted, t.Line
	if s.line {
		s.irq()
	}
	return nil
}
