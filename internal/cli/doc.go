// Package cli is the duplex command line: one file a subcommand, and the parts
// they share (flag sets, error printing, progress).
//
// A subcommand parses its flags into a plain struct, turns that into a spec of
// the package that does the work, calls it, and prints what comes back. It
// holds no logic that a program using the packages would miss. To add one,
// write its file and put it into the table in cli.go.
//
// A command returns an error for a failure of duplex itself; Main prints it
// once, as "duplex: what failed: why" with the remedy on the next line, and
// exits with 125 or what the error says. A workload that ends badly is not an
// error: its status comes back as cmdline.Status and passes through silently.
package cli
