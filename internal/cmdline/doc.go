// Package cmdline is what all command lines of duplex share: flags, errors in
// their one form, signals, the exit status. duplex and the small program that is
// its OCI runtime are linked from it.
package cmdline
