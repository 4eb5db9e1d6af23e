// Package clones runs many clones of one snapshot at once and says what memory they
// take: `duplex snapshot bench`.
//
// A clone is a process of its own, `duplex run --vm --warm -i IMAGE cat`, as a user
// would start it. It counts as up when a line that was written to its standard input
// has come back through the guest, and stays up, blocked in a read, until all have
// been measured.
package clones
