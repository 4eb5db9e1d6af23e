// Package ocicli is the command line of the OCI runtime, `duplex oci`. It is apart
// from package cli because it is linked into a program of its own as well
// (cmd/duplex-oci), which starts in a third of the time.
package ocicli
