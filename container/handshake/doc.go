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
package handshake
