// Package lean lets a process that runs for long give back what only its start
// took.
//
// A Go program of a few MiB of code has most of it mapped once it has started:
// initializers and a few calls touch pages all over, and the kernel maps 64 KiB
// around each (fault-around). The heap holds what was parsed and dropped, as the
// collector has had no reason to run. Neither is needed by a process that waits
// for a guest, and Settle drops both: the pages of the program stay in the page
// cache, and the few that are still in use are mapped again when they are touched.
// And the heap gets no huge pages, with which a kernel that gives them to everybody
// keeps it at 4 MiB and more.
package lean
