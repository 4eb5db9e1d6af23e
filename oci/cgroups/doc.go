// Package cgroups makes and manages the control groups of an OCI container
// (runtime-spec, config-linux.md, "Control groups"), on cgroup v1, on v2, and
// on hosts that mount both, where it uses v1.
//
// A container of this kind is in a group of every v1 hierarchy, or in one v2
// group: unlike package container/cgroup, which makes only what limits need.
// Files are named in two tables, one for each version; a limit that no mounted
// controller can keep is an error.
package cgroups
