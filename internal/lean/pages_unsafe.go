package lean

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// drop unmaps the pages; they are read from their file when they are touched.
func (p Pages) drop() {
	// SAFETY: p is a private mapping of a file that is not writable and has no
	// relocations (Program), so that its pages are the file's: dropping one
	// changes no byte that anybody reads. The kernel gets numbers, no pointer.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(p.Start), uintptr(p.End-p.Start), unix.MADV_DONTNEED) // else they stay
}

// arena is the unit in which Go's runtime reserves memory for its heap on 64-bit
// Linux (heapArenaBytes in runtime/malloc.go); arenas are aligned to it.
const arena = 64 << 20

// smallPages keeps the kernel from backing the heap with huge pages, where it does
// so for every process: then the heap takes 2 MiB at a time, and what is freed
// comes back (go.dev/issue/64332). It is for the arena that there is; what the heap
// grows by later needs GODEBUG=disablethp=1 from the start.
func smallPages() {
	on := new([64]byte)
	// SAFETY: the address is only looked at: the heap has on in the arena around it.
	start := uintptr(unsafe.Pointer(on)) &^ (arena - 1)
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, arena, unix.MADV_NOHUGEPAGE) // else the pages are huge
}
