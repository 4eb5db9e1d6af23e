package lean

import "golang.org/x/sys/unix"

// drop unmaps the pages; they are read from their file when they are touched.
func (p Pages) drop() {
	// SAFETY: p is a private mapping of a file that is not writable and has no
	// relocations (Program), so that its pages are the file's: dropping one
	// changes no byte that anybody reads. The kernel gets numbers, no pointer.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(p.Start), uintptr(p.End-p.Start), unix.MADV_DONTNEED) // else they stay
}
