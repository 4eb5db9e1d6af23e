package handshake

import (
	"encoding/json"
	"os"
	"syscall"

	"github.com/duplex-run/duplex/internal/confine"
	"github.com/duplex-run/duplex/internal/netif"
	"github.com/duplex-run/duplex/internal/workload"
)

// argv[0] of the container's own processes.
const (
	InitName = "duplex-init"
	ExecName = "duplex-exec"
	// OCIName is that of an OCI container's first process, and of one that joins
	// it: it becomes the user's program itself. argv[1] is the number of
	// descriptors from 3 on that are the user's; its own follow: the handshake,
	// then its executable.
	OCIName = "duplex-oci"
)

// Descriptors those processes start with, after the standard three.
const (
	ConnFD    = 3 // both: the handshake
	ProgramFD = 4 // init: its executable
	SpareFD   = 5 // init: exec's handshake, then cgroup files
	TasksFD   = 4 // exec: its first cgroup file
)

// Environment is that of the container's own processes: they do one thing after
// the other, and more threads would only have to be started.
var Environment = []string{"GOMAXPROCS=1"}

// Message is one message of either direction; Kind says which fields it has.
type Message struct {
	Kind Kind `json:"kind"`

	Setup   *Setup         `json:"setup,omitempty"`   // setup
	Execute *Execute       `json:"execute,omitempty"` // execute
	Plan    *Plan          `json:"plan,omitempty"`    // plan
	Stamps  []Stamp        `json:"stamps,omitempty"`  // ready, executing
	Signal  int            `json:"signal,omitempty"`  // signal
	Exit    *workload.Exit `json:"exit,omitempty"`    // exit
	Step    string         `json:"step,omitempty"`    // failed: what failed
	Error   string         `json:"error,omitempty"`   // failed: why
	Errno   syscall.Errno  `json:"errno,omitempty"`   // failed: the kernel's reason, if it was that
	Remedy  string         `json:"remedy,omitempty"`  // failed, of a machine: what the user can do
	Status  int            `json:"status,omitempty"`  // failed, of a machine: the exit status

	// Process is the further program of a machine, as JSON of the specification.
	Process json.RawMessage `json:"process,omitempty"` // go

	// Code is what stopped a script: package inside's.
	Code int64 `json:"-"` // script

	// File came with the message:
	File *os.File `json:"-"` // terminal: the master; network: the TAP device; rootfs: a mount; notify: the listener
}

// Setup, Execute and Plan have methods for package json, because it would prepare
// for all three, and everything in them, in processes that see one.

// MarshalJSON implements json.Marshaler.
func (s *Setup) MarshalJSON() ([]byte, error) { type plain Setup; return json.Marshal((*plain)(s)) }

// UnmarshalJSON implements json.Unmarshaler.
func (s *Setup) UnmarshalJSON(b []byte) error {
	type plain Setup
	return json.Unmarshal(b, (*plain)(s))
}

// MarshalJSON implements json.Marshaler.
func (e *Execute) MarshalJSON() ([]byte, error) {
	type plain Execute
	return json.Marshal((*plain)(e))
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *Execute) UnmarshalJSON(b []byte) error {
	type plain Execute
	return json.Unmarshal(b, (*plain)(e))
}

// MarshalJSON implements json.Marshaler.
func (p *Plan) MarshalJSON() ([]byte, error) { type plain Plan; return json.Marshal((*plain)(p)) }

// UnmarshalJSON implements json.Unmarshaler.
func (p *Plan) UnmarshalJSON(b []byte) error {
	type plain Plan
	return json.Unmarshal(b, (*plain)(p))
}

// Kind is what a message says.
type Kind string

// The kinds, in the order of the diagram in doc.go.
const (
	KindSetup     Kind = "setup"
	KindExecute   Kind = "execute"
	KindMapped    Kind = "mapped"
	KindNetwork   Kind = "network"
	KindRootfs    Kind = "rootfs"
	KindReady     Kind = "ready"
	KindGo        Kind = "go"
	KindTerminal  Kind = "terminal"
	KindExecuting Kind = "executing"
	KindSignal    Kind = "signal"
	KindExit      Kind = "exit"
	KindFailed    Kind = "failed"

	// Of an OCI container, see doc.go.
	KindPlan   Kind = "plan"
	KindScript Kind = "script" // see ScriptHead
	KindHooks  Kind = "hooks"
	KindNotify Kind = "notify"
)

// Stamp is a phase passed in a child; all processes share the host's clock.
type Stamp struct {
	Phase workload.Phase `json:"phase"`
	Ns    int64          `json:"ns"`
}

// Setup tells init what to build.
type Setup struct {
	Rootfs   workload.Rootfs `json:"rootfs"`
	Hostname string          `json:"hostname"`
	Rootless bool            `json:"rootless"`
	// SentLower: the image comes as a mount of the message of KindRootfs that
	// follows, because a user namespace may not make it.
	SentLower bool     `json:"sent_lower,omitempty"`
	Lower     *os.File `json:"-"` // that mount, at the receiver's
	// WaitMapped: the user id map is written by another program; wait for it.
	WaitMapped bool `json:"wait_mapped"`
	TTYGroup   bool `json:"tty_group"` // group 5 is mapped
	// CgroupFD: the descriptor after exec's socket is the v2 cgroup to start
	// exec in.
	CgroupFD bool `json:"cgroup_fd"`
	// ExecFiles counts the descriptors that follow, to be passed on to exec.
	ExecFiles int `json:"exec_files"`
	// Extra files go into the upper directory.
	Extra []workload.ExtraFile `json:"extra,omitempty"`
	// Volumes are bound into the root, in this order.
	Volumes []workload.Volume `json:"volumes,omitempty"`
	// ShmBytes is the size of /dev/shm; 0 is the default.
	ShmBytes int64 `json:"shm_bytes,omitempty"`
	// Network is what there is beside loopback.
	Network Network `json:"network,omitzero"`
	// Shared are the host's namespaces; NoMasks leaves the masked and read-only
	// paths as they are.
	Shared  Shared `json:"shared,omitzero"`
	NoMasks bool   `json:"no_masks,omitempty"`
}

// NetworkDevice is the name of a container's network interface.
const NetworkDevice = "eth0"

// Network tells init of the container's network.
type Network struct {
	// Shared: the namespace is not the container's own; nothing is set up in it.
	Shared bool `json:"shared,omitempty"`
	// TAP: make the interface as a TAP device, and send it with a message of
	// KindNetwork.
	TAP bool `json:"tap,omitempty"`
	// Config is how the interface is set up; nil is none.
	Config *netif.Config `json:"config,omitempty"`
	// Hosts and Resolv are the texts of /etc/hosts and /etc/resolv.conf; "" leaves
	// the image's.
	Hosts  string `json:"hosts,omitempty"`
	Resolv string `json:"resolv,omitempty"`
}

// Shared are namespaces that the container does not have of its own.
type Shared struct {
	PID    bool `json:"pid,omitempty"`
	IPC    bool `json:"ipc,omitempty"`
	UTS    bool `json:"uts,omitempty"`
	Cgroup bool `json:"cgroup,omitempty"`
}

// Execute tells exec what to become.
type Execute struct {
	Spec     workload.Spec `json:"spec"`
	SingleID bool          `json:"single_id"` // a user namespace that maps only id 0
	// Caps are the capabilities to keep, as a set of bits.
	Caps    uint64 `json:"caps"`
	Seccomp []byte `json:"seccomp"` // none: no filter
	// Landlock is the domain to enter; nil is none.
	Landlock *confine.Workload `json:"landlock,omitempty"`
	AppArmor string            `json:"apparmor,omitempty"` // profile, "" for none
	// NewPrivileges leaves no_new_privs out.
	NewPrivileges bool `json:"new_privileges,omitempty"`
	HostCgroup    bool `json:"host_cgroup,omitempty"` // no cgroup namespace
	// CgroupTasks counts the open v1 "tasks" files to join, descriptors TasksFD on.
	CgroupTasks int `json:"cgroup_tasks"`
	// PidsLimit is written to the open file behind those, when it is not empty,
	// right before execve.
	PidsLimit string `json:"pids_limit"`
	// CgroupMounts are the v1 hierarchies to show below /sys/fs/cgroup. When
	// there are none and the host has v2 only, CgroupUnified shows that.
	CgroupMounts  []string `json:"cgroup_mounts"`
	CgroupUnified bool     `json:"cgroup_unified"`
	// Join are namespaces to enter first, of a container that is there already.
	Join []Join `json:"join,omitempty"`
}
