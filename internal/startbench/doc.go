// Startbench measures how long a container's start takes: one bundle with
// docker's defaults, run by duplex, crun, runc and, as near as it gets,
// bubblewrap. See docs/start-time.md; `make bench-container` runs it.
//
// Every engine gets the same rootfs, whose only program is one that ends at once
// (three instructions), the same capabilities, masks and seccomp profile. A
// sample is one fresh process of the engine, from before its fork to its end.
// All engines take turns, in an order drawn anew for each round.
//
// Memory and system calls are counted apart from time, under ptrace(2): the peak
// of resident memory (VmHWM) of each process, read when it ends or becomes
// another program. wait4(2) cannot tell: its figure is the largest of a process,
// its children, and whatever program the same process was before.
//
// On a host with both kinds of cgroups the benchmark unmounts version 2 for
// itself and for all engines, because Debian 12's crun refuses such hosts.
package main
