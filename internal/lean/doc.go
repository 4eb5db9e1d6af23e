// Package lean lets a process that runs for long give back what only its start
// took.
//
// A Go program of a few MiB of code has most of it mapped once it has started:
// initializers and a few calls touch pages all over, and the kernel maps 64 KiB
// around each (fault-around). The heap holds what was parsed and dropped, as the
// collector has had no reason to run. Neither is needed by a process that waits
// for a guest, and Settle drops both: the pages of the program stay in the page
// cache, and the few that are still in use are mapped again when they are touched.
//
// A kernel that gives huge pages to everybody keeps a heap at 4 MiB and more all the
// same (go.dev/issue/64332): against that only GODEBUG=disablethp=1 from the start
// helps, which the Makefile links in.
package lean
