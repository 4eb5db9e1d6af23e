// Package cgroup makes the control groups of one container, on cgroup v1, v2
// or a host that mixes them, and reads what the container used.
//
// Find reads which hierarchy of this host has which controller, and where the
// calling process is in it; New makes one directory a hierarchy and writes the
// limits. A v2 directory is made beside the caller's own, in the nearest
// ancestor that can hand out the controllers, because a v2 group that has
// processes cannot (cgroup-v2.rst, "No Internal Process Constraint"); a v1
// directory is made below the caller's own.
//
// How a process gets in differs, for the sake of time: moving a whole process
// takes a lock that waits for an RCU grace period, so a v2 group is entered by
// clone3(CLONE_INTO_CGROUP), and a v1 group by one thread that writes "0" to
// "tasks", neither of which does.
package cgroup
