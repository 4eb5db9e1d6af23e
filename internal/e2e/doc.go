// Package e2e tests duplex from outside: it runs bin/duplex as a user would and
// looks at what comes out and what is left behind. It needs `make build` first.
//
// Every behaviour that both isolations share is one table, run for the
// container on this host and, for both isolations, inside the lab, where KVM
// boots a stock kernel and cgroup v2 is whole. The workload is the helper
// program in e2e/helper, in an image made from a directory.
package e2e
