// Package confine takes rights away from the running process: the primitives
// that a container's init and a monitor's jail are made of. Each does one thing,
// for every thread of the process, and says what it could not do.
//
// The order in which a process gives things up is not free:
//
//  1. namespaces, by the clone that starts it (Namespaces);
//  2. its file system (EmptyRoot), while it has CAP_SYS_ADMIN in its namespaces;
//  3. capabilities (DropCapabilities), while it has CAP_SETPCAP;
//  4. no_new_privs (NoNewPrivs), without which the next two need privilege;
//  5. Landlock, whose system calls the filter would refuse;
//  6. seccomp (SetFilter) last.
//
// What Go's runtime forces. It starts threads before main, and any goroutine
// may run on any of them. Credentials, no_new_privs and a Landlock domain belong
// to a thread and are inherited by threads it starts. So each is set on all
// threads by syscall.AllThreadsSyscall, which stops the world and makes the call
// on every one; that exists without cgo only, as duplex is built. seccomp has
// a way of its own: SECCOMP_FILTER_FLAG_TSYNC. Mounts and the root directory
// are shared by all threads of a Go program.
package confine
