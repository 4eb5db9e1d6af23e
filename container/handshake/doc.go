// Package handshake is what duplex and the processes of a container say to each
// other, over one stream socket a process: a length as uint32, little-endian,
// then a Message in JSON.
//
// duplex sends setup and execute right after it has started init, so that
// neither process waits for its first message.
//
//	duplex                    init (PID 1)              exec (workload to be)
//	  ├─ setup ────────────────▶│                          │
//	  │                         ├─ fork ──────────────────▶│
//	  ├─ mapped (rootless) ────▶│ user ids                 │
//	  │                         │ mounts, pivot_root       │
//	  │◀────── network (a TAP) ─┤                          │
//	  │◀──────────────── ready ─┤                          │
//	  ├─ go ──────────────────────────────────────────────▶│
//	  │                         │                          │ terminal, cgroup,
//	  │◀───────────────────────────── terminal (with TTY) ─┤ caps, seccomp
//	  │◀──────────────────────────────────────── executing ┤
//	  │                         │                          │ execve: socket closes
//	  ├─ signal ───────────────▶│ kill                     │
//	  │◀───────────────── exit ─┤ wait                     │
//
// Either child sends failed instead of its next message when a step fails, and
// exec sends exit when the command cannot be executed.
//
// An OCI container has one process, which becomes the program when it is told to
// start, at a socket of its own: by then the process that created it is gone.
//
//	create                    duplex-oci (PID 1)
//	  ├─ plan ─────────────────▶│ namespaces, mounts
//	  │◀─────────────── hooks ──┤
//	  ├─ go ───────────────────▶│ createContainer hooks, pivot_root
//	  │◀──── terminal, notify ──┤ ids, capabilities, seccomp
//	  │◀─────────────── ready ──┤ listens
//	start                       │
//	  ├─ connect, go ──────────▶│ startContainer hooks
//	  │                         │ execve: the socket closes
package handshake
