package handshake

import (
	"errors"
	"syscall"
)

// StepError is a failure with the name of the set-up step, on both sides of
// the handshake.
type StepError struct {
	Step string
	Err  error
}

func (e *StepError) Error() string { return e.Step + ": " + e.Err.Error() }
func (e *StepError) Unwrap() error { return e.Err }

// StepTUN is the name of the step whose failure is the host's, for want of TUN.
const StepTUN = "open /dev/net/tun"

// Failed carries err to the parent.
func Failed(err error) Message {
	m := Message{Kind: KindFailed, Step: "container", Error: err.Error()}
	var se *StepError
	if errors.As(err, &se) {
		m.Step, m.Error = se.Step, se.Err.Error()
	}
	_ = errors.As(err, &m.Errno)
	return m
}

// remoteError is an error that came over the handshake: errors.Is sees the
// errno in it.
type remoteError struct {
	text  string
	errno syscall.Errno
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// Failure returns the error a failed message carries.
func (m Message) Failure() error {
	return &StepError{m.Step, &remoteError{m.Error, m.Errno}}
}
