package microvm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/console"
	"github.com/duplex-run/duplex/internal/jail"
	"github.com/duplex-run/duplex/internal/lean"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
)

// maxNote bounds a message between the processes, in bytes.
const maxNote = 128 << 10

// setup is the first message to the monitor: the machine to make.
type setup struct {
	Hardware   Hardware
	Files      []string // what the descriptors from firstFile on are
	Isolated   bool     // namespaces of its own
	StatsEvery time.Duration
	Steps      bool // tell of every step
}

// order is a later message to the monitor.
type order struct {
	Stop  bool // end the run
	Power bool // press the power button
	Count bool // say what the machine has cost so far
	// Lean says that the start is over: the program's pages to give back.
	Lean []lean.Pages `json:",omitzero"`
}

// note is a message from the monitor. The parent does not trust it: a guest may
// have taken the monitor over.
type note struct {
	Kind    noteKind
	Value   int   // event, mark
	Ns      int64 // event, mark: CLOCK_MONOTONIC_RAW
	Step    *workload.Step
	Layers  *jail.Layers
	Stats   *vmm.Stats
	Exit    *vmm.Exit
	Private int64    // ended: the monitor's own memory, in bytes; 0 unknown
	Failure *failure // ended
}

type noteKind string

const (
	noteEvent     noteKind = "event"
	noteMark      noteKind = "mark"
	noteStep      noteKind = "step"
	noteConnected noteKind = "connected"
	noteJailed    noteKind = "jailed"
	noteStats     noteKind = "stats"
	noteAnswer    noteKind = "answer"
	noteSaved     noteKind = "saved"
	noteEnded     noteKind = "ended" // the last one
)

// failure is a *workload.Error on its way.
type failure struct{ Op, Err, Remedy string }

func asFailure(err error) *failure {
	if err == nil {
		return nil
	}
	if !isOwn(err) {
		err = explainNew(err)
	}
	var own *workload.Error
	errors.As(err, &own)
	return &failure{Op: own.Op, Err: clip(own.Err.Error()), Remedy: own.Remedy}
}

func (f *failure) error() error {
	if f == nil {
		return nil
	}
	return &workload.Error{Op: console.Printable(f.Op), Err: errors.New(console.Printable(f.Err)), Remedy: console.Printable(f.Remedy)}
}

// clip bounds a text that the guest has a part in.
func clip(s string) string { return s[:min(len(s), 16<<10)] }

// maxPorts bounds the ports in a note: a guest can touch all 65536.
const maxPorts = 1024

// bounded is s with the busiest ports only.
func bounded(s vmm.Stats) *vmm.Stats {
	if len(s.Ports) > maxPorts {
		busy := slices.SortedFunc(maps.Keys(s.Ports), func(a, b uint16) int { return int(int64(s.Ports[b]) - int64(s.Ports[a])) })
		for _, p := range busy[maxPorts:] {
			delete(s.Ports, p)
		}
	}
	return &s
}

// controlPair returns both ends of the socket that carries the messages, each
// whole or not at all.
func controlPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "monitor"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// send writes one message.
func send(f *os.File, m any) error {
	b, err := json.Marshal(m)
	if err == nil && len(b) > maxNote {
		err = unix.EMSGSIZE
	}
	if err == nil {
		_, err = f.Write(b)
	}
	if err != nil {
		return fmt.Errorf("talk to the monitor's other end: %w", err)
	}
	return nil
}

// receiver reads messages.
type receiver struct {
	f   *os.File
	buf [maxNote]byte
}

// receive reads one message into m; io.EOF means that the other end is gone.
func (r *receiver) receive(m any) error {
	n, err := r.f.Read(r.buf[:])
	if errors.Is(err, unix.ECONNRESET) {
		err = io.EOF // it left something unread
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(r.buf[:n], m)
}
