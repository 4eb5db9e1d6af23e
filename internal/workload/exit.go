package workload

import (
	"errors"
	"fmt"
)

// Exit statuses of the duplex command itself, docker's and timeout(1)'s.
const (
	StatusTimeout       = 124 // the workload ran into --timeout
	StatusError         = 125 // duplex itself failed
	StatusNotExecutable = 126 // the command exists but cannot be executed
	StatusNotFound      = 127 // the command does not exist
)

// Exit is how a workload ended.
type Exit struct {
	// Code is the workload's exit status, 0 to 255; meaningless when Signal is set.
	Code int `json:"code"`
	// Signal that killed the workload, or 0.
	Signal int `json:"signal,omitempty"`
	// TimedOut says that duplex killed it because of Spec.Timeout.
	TimedOut bool `json:"timed_out,omitempty"`
	// OOM says that it ended with 137 and the kernel has killed for want of memory, it
	// or a program that it was about.
	OOM bool `json:"oom,omitempty"`
	// Message explains a 126 or 127 ("exec: \"foo\": not found in $PATH").
	Message string `json:"message,omitempty"`
}

// Status maps an Exit to the status duplex exits with.
func (e Exit) Status() int {
	switch {
	case e.TimedOut:
		return StatusTimeout
	case e.Signal != 0:
		return 128 + e.Signal
	default:
		return e.Code & 0xff
	}
}

func (e Exit) String() string {
	switch {
	case e.TimedOut:
		return "timed out"
	case e.Signal != 0:
		return fmt.Sprintf("killed by signal %d", e.Signal)
	default:
		return fmt.Sprintf("exit status %d", e.Code)
	}
}

// Error is a failure of duplex itself, printed once by the command line as
// "duplex: Op: Err" and, on the next line, the Remedy.
type Error struct {
	// Op is what failed, in the user's words: "open /dev/kvm".
	Op string
	// Err is why.
	Err error
	// Remedy is what the user can do, a sentence; may be empty.
	Remedy string
	// Status is the exit status; 0 means StatusError.
	Status int
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Op
	}
	return e.Op + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Advice is what an error has beside its text: the remedy, and the exit status.
func Advice(err error) (remedy string, status int) {
	var own *Error
	if !errors.As(err, &own) {
		return "", StatusError
	}
	if own.Status == 0 {
		return own.Remedy, StatusError
	}
	return own.Remedy, own.Status
}
