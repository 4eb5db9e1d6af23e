package workload

import (
	"context"
	"io"
	"time"
)

// Isolation names which of the two kinds of isolation runs a workload.
type Isolation string

// The two isolations.
const (
	VM        Isolation = "vm"
	Container Isolation = "container"
)

// Spec says what to run and with which limits. The zero value of a limit means
// "no limit" for a container and "the default" for a microVM, which needs some
// amount of memory.
type Spec struct {
	// ID names this run on the host: cgroup, scratch directory, CID. 12 to 64
	// characters of [a-z0-9-].
	ID string `json:"id"`
	// Name is what the user called the run (--name); may be empty.
	Name string `json:"name,omitempty"`
	// Rootfs is the resolved image.
	Rootfs Rootfs `json:"rootfs"`
	// Argv is the command, Argv[0] is looked up in PATH of Env when it holds no
	// slash. Never empty.
	Argv []string `json:"argv"`
	// Env is a list of KEY=VALUE, complete: nothing is inherited.
	Env []string `json:"env"`
	// Cwd is absolute; it is made when the image lacks it, as docker does.
	Cwd string `json:"cwd"`
	// User is the numeric identity, resolved from the image's own /etc/passwd
	// and /etc/group on the host, so that both isolations agree.
	User User `json:"user"`
	// Hostname; empty means the first 12 characters of ID, as docker does.
	Hostname string `json:"hostname,omitempty"`
	// Resources are the limits.
	Resources Resources `json:"resources"`
	// Rlimits are set on the command; others are the isolation's own.
	Rlimits []Rlimit `json:"rlimits,omitempty"`
	// ShmBytes is the size of /dev/shm; 0 is the isolation's own.
	ShmBytes int64 `json:"shm_bytes,omitempty"`
	// ReadOnly mounts the root read-only.
	ReadOnly bool `json:"read_only,omitempty"`
	// TTY gives the workload a pseudo-terminal; then stderr is part of stdout.
	TTY bool `json:"tty,omitempty"`
	// Size is the terminal's first size; used only with TTY.
	Size WinSize `json:"size,omitzero"`
	// Interactive keeps stdin open; without it the workload reads EOF.
	Interactive bool `json:"interactive,omitempty"`
	// Timeout ends the workload with status 124; 0 means never.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Extra files are put into the writable layer, owned by root, before the
	// workload is executed; the image itself is not changed. They may overwrite
	// what the image has at that path. A run with Extra is never ReadOnly.
	Extra []ExtraFile `json:"extra,omitempty"`
	// Volumes are files and directories of the host that the workload sees. A
	// volume comes after those whose Guest is above its own.
	Volumes []Volume `json:"volumes,omitempty"`
}

// Volume is a file or directory of the host, shown inside (docker's -v).
type Volume struct {
	// Host is the path on the host, absolute; it exists.
	Host string `json:"host,omitempty"`
	// Guest is where it is seen, absolute and clean; not the root, nor at or
	// below /proc, /sys or /dev. What is missing of it is made.
	Guest string `json:"guest"`
	// ReadOnly refuses writes there, with EROFS.
	ReadOnly bool `json:"read_only,omitempty"`
}

// ExtraFile is a small file that comes with the run and not with the image:
// the isolation probe of `duplex compare`.
type ExtraFile struct {
	// Path is "/" and one name: no directory has to be made or followed.
	Path string `json:"path"`
	// Mode holds permission bits only (0 to 0o777).
	Mode uint32 `json:"mode"`
	// Data is at most MaxExtra bytes over all files of a Spec.
	Data []byte `json:"data"`
}

// MaxExtra bounds the bytes of all Extra files of one Spec.
const MaxExtra = 8 << 20

// Rootfs is an image made ready to run: the same bytes in two shapes.
type Rootfs struct {
	// Digest of the image configuration, "sha256:...".
	Digest string `json:"digest"`
	// EROFS is the path of the read-only file system image (a regular file, or
	// a block device inside the lab).
	EROFS string `json:"erofs"`
	// Tree is the path of the unpacked tree; empty until something needs it
	// (a host that can mount EROFS does not).
	Tree string `json:"tree,omitempty"`
}

// User is a resolved numeric identity.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
	// Home is the passwd home directory: HOME when Env has none.
	Home string `json:"home,omitempty"`
}

// Resources are limits; see Spec for what zero means.
type Resources struct {
	MemoryBytes int64   `json:"memory_bytes,omitempty"`
	CPUs        float64 `json:"cpus,omitempty"`
	Pids        int64   `json:"pids,omitempty"`
	// Host is what only the host's kernel can keep, for a container.
	Host *HostLimits `json:"host,omitempty"`
}

// HostLimits are limits of a container by control groups and the like. Zero
// means none.
type HostLimits struct {
	// MemorySwap is memory and swap together, -1 for as much as there is; 0 is no
	// swap on top of the limit of memory.
	MemorySwap        int64 `json:"memory_swap,omitempty"`
	MemoryReservation int64 `json:"memory_reservation,omitempty"`
	// Swappiness is 0 to 100; nil leaves it. It, OOMKillDisable and the times of
	// real-time processes are there on cgroup v1 only.
	Swappiness *uint64 `json:"swappiness,omitempty"`
	// OOMKillDisable lets processes wait for memory instead of killing one.
	OOMKillDisable bool `json:"oom_kill_disable,omitempty"`
	// RTRuntime is the time of real-time processes in each RTPeriod, in
	// microseconds.
	RTRuntime int64  `json:"rt_runtime,omitempty"`
	RTPeriod  uint64 `json:"rt_period,omitempty"`
	CPUShares uint64 `json:"cpu_shares,omitempty"` // against 1024
	// CPUPeriod is the period in which CPUs is counted, in microseconds.
	CPUPeriod uint64 `json:"cpu_period,omitempty"`
	// CPUSet and MemSet are lists as "0-3,7".
	CPUSet    string      `json:"cpu_set,omitempty"`
	MemSet    string      `json:"mem_set,omitempty"`
	IOWeight  uint16      `json:"io_weight,omitempty"` // 10 to 1000
	IOWeights []IOWeight  `json:"io_weights,omitempty"`
	IO        []IOLimit   `json:"io,omitempty"`
	HugePages []HugePages `json:"huge_pages,omitempty"`
	// OOMScoreAdj of the workload; nil leaves it.
	OOMScoreAdj *int `json:"oom_score_adj,omitempty"`
}

// IOLimit is a limit of what goes from or to a block device, a second.
type IOLimit struct {
	Major int64 `json:"major"`
	Minor int64 `json:"minor"`
	Write bool  `json:"write,omitempty"`
	// Ops: Rate counts requests, not bytes.
	Ops  bool   `json:"ops,omitempty"`
	Rate uint64 `json:"rate"`
}

// IOWeight is the weight of one block device.
type IOWeight struct {
	Major  int64  `json:"major"`
	Minor  int64  `json:"minor"`
	Weight uint16 `json:"weight"` // 10 to 1000
}

// HugePages is a limit of huge pages of one size.
type HugePages struct {
	Size  string `json:"size"` // as the kernel names it: "2MB"
	Bytes uint64 `json:"bytes"`
}

// Rlimit is a limit of the workload's process (setrlimit(2)).
type Rlimit struct {
	Resource int    `json:"resource"`
	Soft     uint64 `json:"soft"`
	Hard     uint64 `json:"hard"`
}

// WinSize is a terminal size in characters.
type WinSize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Stdio is what the workload's streams are connected to. A nil In reads EOF, a
// nil Out or Err discards. When a stream is an *os.File the container passes
// the descriptor itself instead of copying.
type Stdio struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
	// Resize delivers window sizes while a TTY workload runs; may be nil.
	Resize <-chan WinSize
	// Signals delivers signals to be forwarded to the workload; may be nil.
	Signals <-chan Signal
	// Running is called once the workload runs, if it is set: what it gets acts on
	// the workload; nil where nothing does. It returns at once.
	Running func(Controller)
}

// Signal is a Linux signal number.
type Signal int

// Runner runs one workload to its end. A returned error is duplex's own
// failure (status 125); a workload that ends badly is an Exit, not an error.
// Run returns only when nothing of the workload is left: no process, mount,
// cgroup or temporary file. Cancelling ctx kills the workload.
//
// A command that is not in the image, or is not executable, comes back as an
// Exit with Code 127 or 126 and a Message, not as an error.
type Runner interface {
	Run(ctx context.Context, spec Spec, stdio Stdio, rec *Recorder) (Exit, error)
}
