// Package seccomp compiles a seccomp profile to a classic BPF program for
// seccomp(2), without libseccomp. It is used twice:
//
//   - at build time, for docker's profile: container/seccomp carries the result,
//     because reading and compiling that profile takes 1 ms;
//   - at run time, for the short allowlists of the monitor (internal/jail).
//
// A profile (opencontainers/runtime-spec, config-linux.md "Seccomp") lists
// system calls by name with an action and, sometimes, comparisons of their
// arguments. Compile turns it into one program for x86-64 and the two other
// ways into its kernel: 32-bit x86 and x32, each with its own system call
// numbers (syscalls_gen.go, written by numbers.go from golang.org/x/sys).
//
// As runc does, a system call whose number is above every number the profile
// names returns ENOSYS and not the profile's default: it is newer than the
// profile, and libraries fall back to older calls on ENOSYS only. CompileExact
// gives it the default, which is what an allowlist means.
//
// Its programs answer as libseccomp's do: TestLibseccomp runs both for docker's
// profile with several sets of capabilities and for small profiles of each thing
// that a profile can say, on every number and around every value that is compared.
// Where they differ, it says why. What libseccomp compiled is in testdata;
// scripts/seccomp-reference makes it anew.
//
// The order of the program: architecture, then a binary search over the system
// call number, then the comparisons. The kernel finds out by itself which
// numbers are allowed whatever the arguments, and does not run the program for
// them (Linux 5.11).
package seccomp

//go:generate go run numbers.go
