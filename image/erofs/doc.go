// Package erofs writes EROFS file system images: the one read-only file that
// a microVM sees as /dev/vda and that a container's host mounts directly.
//
// A caller builds a tree of Nodes, streams each regular file's bytes through
// Writer.Add as it meets them, and calls Writer.Finish with the root. Nothing
// is unpacked on the host and no privilege is needed, because owners, device
// numbers and extended attributes are only bytes in the image. Pack does all
// that for files of the host, which is how files are carried into the lab.
//
// The image is laid out as
//
//	block 0           superblock at byte 1024
//	blocks 1 .. M-1   file contents in the order they were added
//	blocks .. M-1     directory blocks and long symbolic links
//	blocks M ..       inodes, each followed by its xattrs and its inline tail:
//	                  a small file, a link, the last entries of a directory
//
// so contents go straight to their final place, or if small into a spool file
// first, and only metadata is kept in memory. Blocks of zeros are left as holes
// in the host's file.
//
// Only what Linux 5.4 already reads is used: 4 KiB blocks, extended inodes, the
// "plain" and "inline" data layouts, inline xattrs. Every kernel a guest may
// bring can mount the result.
//
// Why an own writer: github.com/erofs/go-erofs v0.3.1 writes every hard link
// as a file of its own, and spools contents twice. Its reader is sound and is
// what the rest of duplex reads images with.
//
// Source of the format: Linux Documentation/filesystems/erofs.rst and
// fs/erofs/erofs_fs.h.
package erofs
