// Package script has a process make a list of system calls, one after the other,
// and nothing else: no runtime, no heap, one page of code. It is for the first
// process of a container until it executes the user's program. A Go program in its
// place would take longer to start than all the calls together
// (docs/start-time.md).
//
// A Script is memory shared with that process (memfd_create(2)): calls, what their
// arguments point to, and words for their results, which later calls may have as
// arguments. It is written in parts, with Flush: a process that waits for a byte of
// a socket after one part finds the next one there. It jumps, by Branch and by
// errors, and goes forward in nothing else.
//
// The program is Program: the instructions of script_amd64.s as a static
// executable, in sealed memory, in which there is nothing of the host that a
// container could change through /proc/PID/exe (CVE-2019-5736). It is of no use
// without a script: who executes it by itself gets status 125.
package script
