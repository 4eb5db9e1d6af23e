// Package snapshot is the directories that saved machines are kept in.
//
//	NAME/state   what it was made of (Key), what the memory file is, and the
//	             machine without its memory (package vmm/state), under one SHA-256
//	NAME/memory  the guest's memory, a sparse file that restored machines map
//
// NAME is a hash of what was asked for: image, kernel, memory, CPUs. What it was
// made by is compared when it is opened: another version of duplex, another host
// kernel or processor, or a changed kernel, initramfs or image file make it stale,
// and ErrStale says which.
//
// # What is checked, and when
//
// Every Open reads the state, checks its SHA-256 and parses it within bounds; so
// a state that is truncated or altered anywhere is refused. The memory is not read:
// that would cost more than the boot it saves. Its size, inode number and times of
// change are compared with what they were when it was complete. A write to the
// file changes its ctime, which no system call sets; so an equal ctime means that
// nobody wrote to the file through a file system since (a clock that was set back,
// or a write to the disk below, goes unnoticed). Where they differ, because the
// files were copied, say, the memory is read once as a whole and its SHA-256
// compared, at every Open.
//
// The hash finds damage, not forgery: whoever may write to the directory can make
// a snapshot of his own, as he could replace the kernel. So Open refuses what
// belongs to another user or is writable by others.
//
// # Making one
//
// Create works in a directory of its own beside the others, locked while its
// process lives, and renames it when all is on the disk. Whoever is killed before
// leaves a directory that has no NAME and that the next Create removes.
package snapshot
