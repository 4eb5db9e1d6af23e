package handshake

import (
	"github.com/duplex-run/duplex/internal/confine"
	"github.com/duplex-run/duplex/internal/workload"
)

// Plan is what the first process of an OCI container builds and becomes. Paths
// of the container are absolute and meant below its root; paths of the host are
// absolute.
type Plan struct {
	// Join are namespaces to enter, by descriptor, in this order.
	Join []Join `json:"join,omitempty"`
	// Watched says that others may be in the process's PID namespace already.
	Watched bool `json:"watched,omitempty"`
	// CgroupTasks are descriptors of v1 "tasks" files to join.
	CgroupTasks []int `json:"cgroup_tasks,omitempty"`
	// CgroupNamespace makes a cgroup namespace after that.
	CgroupNamespace bool `json:"cgroup_namespace,omitempty"`
	// ListenFD is the listening socket at which the process waits for start;
	// 0 when it does not wait.
	ListenFD int `json:"listen_fd,omitempty"`

	// Files is the file system to make; nil to stay in the one it starts in or
	// joined.
	Files *Files `json:"files,omitempty"`

	Hostname   string `json:"hostname,omitempty"`
	Domainname string `json:"domainname,omitempty"`
	// Sysctl are paths below /proc/sys, with slashes, and their values.
	Sysctl []Setting `json:"sysctl,omitempty"`
	// Loopback brings lo up, in a network namespace that is new.
	Loopback bool `json:"loopback,omitempty"`
	// Keyring is the name of the session keyring to make; "" is anonymous,
	// NoKeyring none.
	Keyring string `json:"keyring,omitempty"`

	// CreateContainer and StartContainer are hooks for inside; State is what
	// they read.
	CreateContainer []Hook `json:"create_container,omitempty"`
	StartContainer  []Hook `json:"start_container,omitempty"`
	State           []byte `json:"state,omitempty"`

	Process *Process `json:"process,omitempty"`
}

// NoKeyring as a Plan's Keyring keeps the session keyring.
const NoKeyring = "-"

// Join is a namespace to enter by setns(2): its type (CLONE_NEW*) and an open
// descriptor of it.
type Join struct {
	Type int `json:"type"`
	FD   int `json:"fd"`
}

// Setting is a key and its value.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Files says how the container's file system is made, in the order of the
// fields.
type Files struct {
	// Rootfs is a directory of the host.
	Rootfs string `json:"rootfs"`
	// NewNamespace: the process has a mount namespace of its own. Without, it
	// gets a chroot and the mounts show on the host until delete.
	NewNamespace bool `json:"new_namespace"`
	// User: the process is in a user namespace of its own.
	User bool `json:"user,omitempty"`
	// Propagation is MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE, with or
	// without MS_REC, of every mount of the new namespace to begin with and of
	// the new root in the end.
	Propagation uintptr `json:"propagation"`
	Mounts      []Mount `json:"mounts,omitempty"`
	// Dev: make Devices, the links of devLinks and /dev/console.
	Dev     bool     `json:"dev"`
	Devices []Device `json:"devices,omitempty"`
	// Cwd is made where it is missing.
	Cwd      string   `json:"cwd,omitempty"`
	Masked   []string `json:"masked,omitempty"`
	ReadOnly []string `json:"read_only,omitempty"`
	// ReadOnlyRoot makes the root itself read-only, not what is mounted in it.
	ReadOnlyRoot bool `json:"read_only_root,omitempty"`
	// V1 are the v1 cgroups of the container, for a mount of type cgroup.
	V1 []CgroupDir `json:"v1,omitempty"`
	// V2 is the v2 cgroup of the container on a host that has v2 alone.
	V2 string `json:"v2,omitempty"`
}

// CgroupDir is a cgroup of the container: the name of its hierarchy
// ("cpu,cpuacct") and its directory on the host.
type CgroupDir struct {
	Name string `json:"name"`
	Dir  string `json:"dir"`
}

// Mount is one mount (mount(8)). Of a bind mount Type is "".
type Mount struct {
	Type   string    `json:"type,omitempty"`
	Source string    `json:"source,omitempty"`
	Dest   string    `json:"dest"`
	Data   []Setting `json:"data,omitempty"` // options of the file system; no value: a flag
	// Set and Clear are MOUNT_ATTR_* of this mount, the others of the mounts
	// below it too.
	Set       uint64 `json:"set,omitempty"`
	Clear     uint64 `json:"clear,omitempty"`
	RecSet    uint64 `json:"rec_set,omitempty"`
	RecClear  uint64 `json:"rec_clear,omitempty"`
	Recursive bool   `json:"recursive,omitempty"` // rbind
	// Propagation are MS_* types to set, in order.
	Propagation []uintptr `json:"propagation,omitempty"`
	// CopyUp fills a new tmpfs with what the root has at that place.
	CopyUp bool `json:"copy_up,omitempty"`
	// NoFollow: of a bind mount, the last name of Source is not followed; of
	// another one, no symbolic link in Dest.
	NoFollow bool `json:"no_follow,omitempty"`
	// Optional: a kernel without that file system does without the mount.
	Optional bool `json:"optional,omitempty"`
	// FD is a descriptor of the mount, made already, detached; 0 is none.
	FD int `json:"fd,omitempty"`
}

// Device is a device node to make.
type Device struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"` // S_IFCHR, S_IFBLK or S_IFIFO, and permissions
	// Major and Minor are of no meaning for a fifo.
	Major uint32 `json:"major,omitempty"`
	Minor uint32 `json:"minor,omitempty"`
	UID   uint32 `json:"uid,omitempty"`
	GID   uint32 `json:"gid,omitempty"`
}

// Hook is a program to run with the container's state on its standard input.
type Hook struct {
	Path string   `json:"path"`
	Args []string `json:"args,omitempty"`
	Env  []string `json:"env,omitempty"`
	// Timeout in seconds; 0 is none.
	Timeout int `json:"timeout,omitempty"`
}

// Process is what the user's program runs as.
type Process struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`
	Cwd  string   `json:"cwd"`

	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
	Umask  uint32   `json:"umask"`
	// NoGroups: setgroups(2) is denied, as in a user namespace made without
	// privilege.
	NoGroups bool `json:"no_groups,omitempty"`

	Terminal bool   `json:"terminal,omitempty"`
	Rows     uint16 `json:"rows,omitempty"`
	Cols     uint16 `json:"cols,omitempty"`

	// Capability sets, as bits by number.
	Bounding    uint64 `json:"bounding"`
	Effective   uint64 `json:"effective"`
	Permitted   uint64 `json:"permitted"`
	Inheritable uint64 `json:"inheritable"`
	Ambient     uint64 `json:"ambient"`

	Rlimits    []workload.Rlimit `json:"rlimits,omitempty"`
	NoNewPrivs bool              `json:"no_new_privs,omitempty"`
	AppArmor   string            `json:"apparmor,omitempty"`
	// Landlock is the domain to enter; nil is none.
	Landlock  *confine.Workload `json:"landlock,omitempty"`
	Scheduler *Scheduler        `json:"scheduler,omitempty"`
	// IOPriority is the value of ioprio_set(2); 0 is none.
	IOPriority int `json:"io_priority,omitempty"`
	// Personality is the argument of personality(2); 0 is none (PER_LINUX).
	Personality uint32 `json:"personality,omitempty"`
	// MemoryPolicy is NUMA's (set_mempolicy(2)); nil is none.
	MemoryPolicy *MemoryPolicy `json:"memory_policy,omitempty"`
	// CPUs is the affinity to take right before execve, as a list of numbers.
	CPUs []int `json:"cpus,omitempty"`

	Seccomp      []byte `json:"seccomp,omitempty"`
	SeccompFlags uint32 `json:"seccomp_flags,omitempty"`
	// Notify: the filter has a listener, whose descriptor is to be sent.
	Notify bool `json:"notify,omitempty"`
	// Preserve descriptors from 3 on go to the program.
	Preserve int `json:"preserve,omitempty"`
}

// MemoryPolicy are the arguments of set_mempolicy(2).
type MemoryPolicy struct {
	Mode  int   `json:"mode"` // MPOL_*, with flags
	Nodes []int `json:"nodes,omitempty"`
}

// Scheduler are the fields of struct sched_attr (sched_setattr(2)).
type Scheduler struct {
	Policy   uint32 `json:"policy"`
	Flags    uint64 `json:"flags"`
	Nice     int32  `json:"nice"`
	Priority uint32 `json:"priority"`
	Runtime  uint64 `json:"runtime"`
	Deadline uint64 `json:"deadline"`
	Period   uint64 `json:"period"`
}
