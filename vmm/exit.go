package vmm

import "fmt"

// Reason says why a run ended.
type Reason int

// The reasons.
const (
	PowerOff      Reason = iota + 1 // the guest powered off
	Reset                           // the guest asked to restart: reboot, or a panic with panic=-1
	TripleFault                     // the guest's CPU shut down
	Canceled                        // Run's context ended first
	InternalError                   // KVM cannot go on with this guest
)

var reasonNames = map[Reason]string{
	PowerOff: "power off", Reset: "reset", TripleFault: "triple fault",
	Canceled: "canceled", InternalError: "internal error",
}

func (r Reason) String() string {
	if s, ok := reasonNames[r]; ok {
		return s
	}
	return fmt.Sprintf("reason %d", int(r))
}

// Exit is how a run ended.
type Exit struct {
	Reason Reason
	// Detail says more for people: where the guest was, what KVM said.
	Detail string
}

func (e Exit) String() string {
	if e.Detail == "" {
		return e.Reason.String()
	}
	return e.Reason.String() + ": " + e.Detail
}
