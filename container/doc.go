// Package container runs a workload in Linux namespaces, without any daemon.
//
// # Processes
//
// A run is three processes:
//
//	duplex           Runner.Run: makes cgroups, builds the file system, starts init, copies streams, waits
//	└─ duplex-init   PID 1 of the container: reaps
//	   └─ workload
//
// Where root runs it and nothing of what is below asks for more, PID 1 is no
// program of Go's but a script of system calls (package container/script): it
// mounts procfs, makes the workload's process, which goes on with the script in
// PID 1's memory until execve (cgroup namespace, capabilities, seccomp), and waits
// for children. A thread of duplex, in the container's namespaces, makes the mounts
// and changes the root meanwhile: inside.Contained. It lives as long as PID 1, which
// has a parent-death signal.
//
// Terminals, user namespaces, the host's PID namespace, AppArmor, the user-mode
// network and an OOM score have PID 1 be package inside in a program of its own
// (container/init), and the workload start as one more (duplex-exec). That program
// starts in a third of the time that duplex itself does. It is a part of duplex's
// file, executed from a read-only mount, or carried and executed from sealed memory,
// so that no file of the host can be changed through it; see Program. A duplex that
// was built without it starts itself instead, which is why main calls Init before
// anything else. Each has a socket to duplex and speaks package handshake over it:
// typed, and every failure with the name of the step that failed.
//
// TestDirectIsTheSame compares what a workload sees in both.
//
// The workload is not PID 1 but its child, as with docker run --init: a signal
// whose default action is to kill does kill it, orphans are reaped, and the
// microVM, whose agent is PID 1, behaves the same. When the workload ends, PID 1
// ends, and with it the kernel kills whatever is left in the PID namespace. The
// same happens when duplex itself is killed: PID 1 has a parent-death signal,
// and ends when its socket closes.
//
// # Root file system
//
// Everything is mounted in the container's own mount namespace, by file
// descriptor: nothing shows on the host, and nothing is left there however a
// run ends. The lower layer is the image's EROFS file (mounted as a file since
// Linux 6.12, through a loop device before), or the unpacked tree where the host
// may not mount EROFS; the upper layer is a tmpfs, so what the workload writes is
// memory and counts towards its memory limit.
//
// Every mount except the bind-mounted standard device nodes and devpts is nodev.
// CAP_MKNOD, which docker's default set includes, thereby gives no access to a
// device: this takes the place of docker's device cgroup and works the same on
// cgroup v1, v2 and rootless.
//
// # What the workload may do
//
// Docker's defaults: its 14 capabilities, its seccomp profile, its masked and
// read-only paths; and no_new_privs always, which docker leaves off: a setuid
// program (sudo, ping) runs, but gains nothing, other than in a microVM. Init itself
// keeps only CAP_KILL once the workload starts, and cannot be traced.
//
// Without root, a user namespace makes the caller root inside. With newuidmap(1)
// and subordinate ids there are other users too; without, a --user other than 0
// is refused. Limits need a cgroup this user may write: one that was asked for
// and cannot be set is an error, never ignored.
//
// # Limits
//
// See package cgroup. The groups hold the workload only: init, some threads and
// a few megabytes, stays outside, so that --pids-limit=1 and --memory=6m mean
// what they say. A memory limit includes swap (there is none on top).
package container
