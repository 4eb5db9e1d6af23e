// Package program provides the executable of a microVM's monitor: the small one
// that duplex carries.
//
// It is written to the cache once, named by its hash, and started from there:
// machines that run at the same time share its pages, and nothing is copied for a
// start, which a file in memory would have to be. Before it is started it is checked
// that the file is the caller's, whole, and nobody else's to write to; who may write
// to the caller's cache can as well replace the caller's other programs. The
// descriptor that was checked is the one that is executed.
package program
