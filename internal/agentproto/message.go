package agentproto

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/internal/netif"
	"github.com/duplex-run/duplex/internal/workload"
)

// Version is the protocol's version; agent and host are built together, so
// they must be equal.
const Version = 3

// Type says what a Message is.
type Type string

// The types of messages, by who sends them.
const (
	Hello    Type = "hello"    // agent: Version, Restored
	Started  Type = "started"  // agent: PID
	Failed   Type = "failed"   // agent: Step, Error
	Exited   Type = "exit"     // agent: Exit
	Returned Type = "returned" // agent: Bytes of the tar stream, Error
	Log      Type = "log"      // agent: Text, a part of the kernel's log; see ReportKey

	Run      Type = "start"     // host: Start
	Signal   Type = "signal"    // host: Signal
	Resize   Type = "resize"    // host: Size
	StdinEOF Type = "stdin_eof" // host: Bytes sent on stdin before it
	Closed   Type = "closed"    // host: Stream ("stdout" or "stderr") is read no more

	Attach Type = "attach" // host, first on a stream of its own: Session, Stream; see ExecPort

	Pulse Type = "pulse" // host: interrupt every CPU; agent: done; see Session.Pulse

	Count Type = "count" // host: how many processes there are; agent: Pids
)

// Message is one control message; which fields count depends on Type.
type Message struct {
	Type    Type `json:"type"`
	Version int  `json:"version,omitempty"`
	// Restored says that the machine had been saved.
	Restored bool              `json:"restored,omitempty"`
	PID      int               `json:"pid,omitempty"`
	Step     string            `json:"step,omitempty"`
	Error    string            `json:"error,omitempty"`
	Bytes    uint64            `json:"bytes,omitempty"`
	Pids     int32             `json:"pids,omitempty"`
	Stream   string            `json:"stream,omitempty"`
	Session  string            `json:"session,omitempty"`
	Text     string            `json:"text,omitempty"`
	Signal   int               `json:"signal,omitempty"`
	Size     *workload.WinSize `json:"size,omitempty"`
	Exit     *Exit             `json:"exit,omitempty"`
	Start    *Start            `json:"start,omitempty"`
}

// Exit is how the workload ended and how much it wrote.
type Exit struct {
	workload.Exit
	StdoutBytes uint64 `json:"stdout_bytes"`
	StderrBytes uint64 `json:"stderr_bytes"`
}

// Start is everything the agent needs to run one workload.
type Start struct {
	// Spec without host paths: Rootfs names nothing inside the guest.
	Spec workload.Spec `json:"spec"`
	// Root is the read-only root file system: the serial number of a virtio-blk
	// device or its name below /dev. Empty means the initramfs itself.
	Root string `json:"root,omitempty"`
	// TimeNs is the host's CLOCK_REALTIME in nanoseconds when the message is sent:
	// Session sets it. 0 leaves the clock alone.
	TimeNs int64 `json:"time_ns,omitempty"`
	// Clone is what a machine that was restored from a snapshot must not share with
	// others of the same snapshot; nil in a machine that has booted.
	Clone *Clone `json:"clone,omitempty"`
	// Network is the interface to set up; nil means loopback only.
	Network *Network `json:"network,omitempty"`
	// Balloon says that the machine has a memory balloon.
	Balloon bool `json:"balloon,omitempty"`
	// Shares are directories of the host, mounted in this order.
	Shares []Share `json:"shares,omitempty"`
	// Lab asks for what only the lab has; nil in a microVM.
	Lab *Lab `json:"lab,omitempty"`
}

// Clone makes a restored machine one of its own.
type Clone struct {
	// Entropy are random bytes of the host's, at least MinEntropy: the guest's
	// random numbers are made from them, before anything else happens.
	Entropy []byte `json:"entropy"`
	// MachineID replaces the image's /etc/machine-id, if it has one: 32 lower-case
	// hexadecimal digits (machine-id(5)).
	MachineID string `json:"machine_id"`
}

// MinEntropy is how many random bytes a Clone has at least: the size of the key
// of the guest's generator (Linux, drivers/char/random.c: ChaCha20, 32 bytes).
const MinEntropy = 32

// NewClone returns what one restored machine has for itself, made from the host's
// random numbers.
func NewClone() *Clone {
	random := make([]byte, 2*MinEntropy+16)
	_, _ = rand.Read(random) // never fails
	id := random[2*MinEntropy:]
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // a version 4 UUID: machine-id(5)
	return &Clone{Entropy: random[:2*MinEntropy], MachineID: hex.EncodeToString(id)}
}

// valid says whether the agent can use c.
func (c *Clone) valid() bool {
	if c == nil {
		return true
	}
	id, err := hex.DecodeString(c.MachineID)
	return err == nil && len(id) == 16 && strings.ToLower(c.MachineID) == c.MachineID && len(c.Entropy) >= MinEntropy
}

// Share is a virtio-fs device and the place it is mounted on.
type Share struct {
	// Tag of the device.
	Tag string `json:"tag"`
	// Guest is the absolute path; what is missing of it is made.
	Guest string `json:"guest"`
	// ReadOnly mounts it read-only; the device refuses writes as well.
	ReadOnly bool `json:"read_only,omitempty"`
	// File is the name of the one file below the device's root that is mounted;
	// empty means the directory.
	File string `json:"file,omitempty"`
}

// Lab is what the lab's agent does beyond the microVM's.
type Lab struct {
	// Packs are the carried files, put in place in this order.
	Packs []Pack `json:"packs,omitempty"`
	// Return lists absolute paths: regular files at or below them that are new
	// or changed come back, as a tar stream of names without the leading slash.
	// Directories above them are made before the workload starts.
	Return []string `json:"return,omitempty"`
	// Skip lists absolute directories that nothing comes back from.
	Skip []string `json:"skip,omitempty"`
}

// Pack is one EROFS image of carried files.
type Pack struct {
	// Device is the serial number of its virtio-blk device.
	Device string `json:"device"`
	// Items are what it holds.
	Items []Item `json:"items"`
}

// Item is a file or directory in a Pack and the place it belongs to.
type Item struct {
	// Name is in the root of the pack.
	Name string `json:"name"`
	// Path is absolute. Directories above it are made.
	Path string `json:"path"`
}

// Network is the guest's network interface. It is configured by the agent and not
// by the kernel command line, which would make the kernel wait for devices.
type Network = netif.Config

// maxSignal is the highest signal number Linux has (SIGRTMAX).
const maxSignal = 64

var errIncomplete = errors.New("field missing or out of range")

// fromGuest checks a message that the agent sent.
func (m *Message) fromGuest() error {
	ok := false
	switch m.Type {
	case Hello:
		ok = m.Version > 0
	case Started:
		ok = m.PID > 0
	case Failed:
		ok = m.Step != "" && m.Error != ""
	case Exited:
		ok = m.Exit != nil && m.Exit.Code >= 0 && m.Exit.Code <= 255 &&
			m.Exit.Signal >= 0 && m.Exit.Signal <= maxSignal
	case Returned, Pulse:
		ok = true
	case Log:
		ok = m.Text != ""
	case Count:
		ok = m.Pids >= 0
	default:
		return fmt.Errorf("unexpected message %q from the guest", m.Type)
	}
	if !ok {
		return fmt.Errorf("message %q: %w", m.Type, errIncomplete)
	}
	return nil
}

// fromHost checks a message that the host sent.
func (m *Message) fromHost() error {
	ok := false
	switch m.Type {
	case Run:
		ok = m.Start != nil && len(m.Start.Spec.Argv) > 0 && m.Start.Network.Valid() && m.Start.Clone.valid()
	case Signal:
		ok = m.Signal > 0 && m.Signal <= maxSignal
	case Resize:
		ok = m.Size != nil
	case Closed:
		ok = m.Stream == Stdout.Name() || m.Stream == Stderr.Name()
	case Attach:
		p, _ := PortNamed(m.Stream)
		ok = slices.Contains(ExecPorts, p) && m.Session != "" && len(m.Session) <= maxSessionID
	case StdinEOF, Pulse, Count:
		ok = true
	default:
		return fmt.Errorf("unexpected message %q from the host", m.Type)
	}
	if !ok {
		return fmt.Errorf("message %q: %w", m.Type, errIncomplete)
	}
	return nil
}

// Port is one of the byte streams.
type Port int

// The streams, in the order of their vsock ports.
const (
	Control Port = iota
	Stdin
	Stdout
	Stderr
	Return  // the lab only
	Further // the lab only: a Mux of the streams of further commands
	numPorts
)

var portNames = [numPorts]string{"control", "stdin", "stdout", "stderr", "return", "further"}

// Name is what messages call the stream.
func (p Port) Name() string { return portNames[p] }

// Serial is the name of the stream's virtio-serial port (virtio 1.2, 5.3.6.2).
func (p Port) Serial() string { return "duplex." + portNames[p] }

// PortNamed is the stream of that Name.
func PortNamed(name string) (Port, bool) {
	i := slices.Index(portNames[:], name)
	return Port(i), i >= 0
}

// ExecPorts are the streams of a further command, see ExecPort.
var ExecPorts = []Port{Control, Stdin, Stdout, Stderr}

// ExecPort is the AF_VSOCK port that the agent of a microVM listens on while its
// workload runs; the lab's has a Mux in its place. The host opens a stream there for each of ExecPorts, which
// begins with Attach: those that name the same session belong together. From
// then on they are as a machine's own, hello first, and Start.Spec is a further
// command for the running machine. The end of Control kills it.
const ExecPort = 1030

// maxSessionID bounds a session's name, in bytes.
const maxSessionID = 64

// Vsock is the stream's AF_VSOCK port on the host, which the agent connects to.
func (p Port) Vsock() uint32 { return FirstPort + uint32(p) }

// FirstPort is the AF_VSOCK port of the first stream, and WorkloadPort one that a
// workload connects to which the host wants to talk with.
const (
	FirstPort    = 1024
	WorkloadPort = 1088
)

// The marks port: the agent writes one of the Mark values to it, and the host
// stamps the exit.
const (
	MarksPort    = 0xd5
	MarkKernelUp = 1
	MarkWorkload = 2
	// MarkSnapshot asks for the machine to be saved as it is right behind it: the
	// agent has done all that does not depend on a run, and has no stream open.
	MarkSnapshot = 3
	// MarkStep comes right after a line of the kernel's log that begins with
	// StepPrefix; see ReportKey.
	MarkStep = 4
	// MarkResumed is the first thing that a restored machine does.
	MarkResumed = 5
)

// Words of the kernel command line that the agent reads.
const (
	TransportKey    = "duplex.transport"
	TransportVsock  = "vsock"
	TransportSerial = "serial"
	// SnapshotKey is there when the machine is to be saved; its value is the
	// root file system of the runs to come, as Start.Root.
	SnapshotKey = "duplex.snapshot"
	// ReportKey=1 asks the agent where the boot goes: it names each of its steps in
	// the kernel's log and marks it, so that both clocks see it, and sends that log
	// when the workload has ended. Without a dot, or the kernel would take it for a
	// module's parameter and not pass it on to init's environment.
	ReportKey = "duplex_report"
	// StepPrefix begins the line of a step in the kernel's log.
	StepPrefix = "duplex: step "
)
