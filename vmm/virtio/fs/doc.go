// Package fs is a virtio-fs device (virtio 1.2 §5.11): it shares one directory
// of the host with the guest, which mounts it by its tag:
//
//	mount -t virtiofs TAG /mnt
//
// Requests are those of FUSE (Linux include/uapi/linux/fuse.h, protocol 7.31 to
// 7.38), served in this process, one at a time, from one request queue.
//
//	device.go      the virtio side: configuration, queues
//	proto.go       layouts of FUSE, and nothing else
//	server.go      takes a request apart, checks it, replies; the table of operations
//	inode.go       what the guest knows: one O_PATH descriptor an inode
//	handle.go      what the guest opened
//	attr.go, dir.go, file.go, make.go, xattr.go   the operations
//	sys_unsafe.go  system calls that must not allocate
//
// # What keeps the guest inside
//
// The guest names files by node ids that the server gave out, and by single
// names below them. A node id stands for an open O_PATH descriptor; a name is
// looked up below one without following a symbolic link, and "." and ".." and
// names with a slash are refused. There is no path to race with: whoever swaps a
// directory for a symbolic link, on either side, changes what a name finds, never
// where the server looks. Symbolic links are handed to the guest, whose kernel
// follows them in its own tree. Only regular files and directories are opened;
// FIFOs, sockets and device nodes of the host are seen, not opened, and the guest
// cannot make device nodes.
//
// A directory that somebody on the host moves out of the shared tree stays
// reachable while the guest holds its node. File systems mounted below the shared
// directory are shared too, as by a recursive bind mount.
//
// # Identity
//
// Everything is done with the identity of this process. Linux checks permissions
// in the guest, by owners and modes (default_permissions). When this process is
// root, new files belong to the guest's caller; otherwise to this process's user,
// and chown fails with EPERM. Set-user-ID bits are stored as the guest sets them:
// do not share a directory with a guest you distrust where other users of the
// host can execute files.
//
// # Bounds
//
// Options.MaxInodes inodes, beyond which lookups fail with ENFILE; MaxHandles open
// files and directories, beyond which opening fails with EMFILE; MaxIO bytes a
// read or write; half a megabyte of buffers a device. A file may grow as large as
// the host lets this process write (RLIMIT_FSIZE, quotas): beyond that the guest
// gets EFBIG, EDQUOT or ENOSPC.
package fs
