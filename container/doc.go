// Package container runs a workload in Linux namespaces, without any daemon.
//
// # Processes
//
// A run is three processes:
//
//	duplex           Runner.Run: makes cgroups, starts init, copies streams, waits
//	└─ duplex-init   PID 1 of the container: mounts, pivot_root, reaps
//	   └─ workload   starts as duplex-exec: cgroup namespace, terminal,
//	                 capabilities, seccomp, then execve of the command
//
// The other two are package inside, linked into a program of their own
// (container/init), which starts in a third of the time that duplex itself does. It
// is a part of duplex's file, executed from a read-only mount, or carried and
// executed from sealed memory, so that no file of the host can be changed through
// it; see Program. A duplex that was built without it starts itself instead, which
// is why main calls Init before anything else.
//
// Each has a socket to duplex and speaks package handshake over it: typed, and
// every failure with the name of the step that failed. duplex-exec is started
// before the mounts are made so that its start-up is not waited for.
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
