// Package oci is an OCI runtime: it makes containers of bundles (runtime-spec
// 1.3) and takes them through their life, for `duplex oci` and so for podman,
// docker and containerd.
//
// # What is where
//
// config.json is parsed and checked without a look at the host (Parse, with a
// fuzz target), then turned into a handshake.Plan: typed data, in which names,
// options and defaults are resolved. Package container/inside executes the plan, in
// one of two ways. The usual one (direct.go): a thread of the creator enters the
// container's namespaces, but that of processes, and builds the file system; the
// container's first process is a script of system calls, with no runtime
// (container/script). What that cannot do (canDirect) has a process of Go's in the
// container, which builds it from inside. Both leave the program the same
// (TestDirectIsTheSame). Either first process becomes the program in the end: there
// is no process between it and the engine.
//
// A container is a directory below the root of the state: state.json, a lock,
// and until start the socket that the container's process waits at. Every
// command that changes the container holds the lock. The first process is known
// by its number and its start time, and signalled by pidfd, so a number that is
// given out again is never mistaken for it.
//
// What create has made is written down before it is made: a create that is killed
// is undone by the next create or delete of that id.
//
// # In a microVM
//
//	command                supervisor (the container's pid)     guest
//	create, start   ---->  its own mount namespace, one share   duplex in-guest:
//	kill, exec, ps  ---->  microvm.Runner               <---->  Create, Start, ...
//
// A bundle is divided (vmspec.go) between the machine and the runtime in its guest,
// which is this package once more (vmguest.go). The supervisor (vmsupervisor.go)
// takes the part that a container's own process has: the same handshake with
// create, the same socket for start. It speaks with the guest's runtime over one
// stream, and with commands over a socket in the state directory (vmcontrol.go),
// in words (vmtalk.go); what comes from a guest is not trusted. A further program
// has a process on the host that stands for it (vmexec.go).
//
// # What is refused
//
// A property that is known and not supported is an error that names it; one that
// the specification does not know is ignored, as it asks.
package oci
