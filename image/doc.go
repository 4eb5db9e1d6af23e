// Package image turns a reference into one read-only EROFS file, which is what
// both isolations run: the microVM as its disk, the container as its lower
// layer. Resolve is the way in.
//
// # References
//
//	builtin               u-root's commands, carried by the duplex binary
//	docker-archive:FILE   what `docker save` and `skopeo copy` write
//	oci:DIR[:TAG]         an OCI image layout
//	rootfs:DIR            a directory of this host, as it is now
//	sha256:HEX, HEX...    something imported before; any unambiguous prefix
//
// # Store
//
// Everything is kept under hostdir.Cache("images"):
//
//	HEX/rootfs.erofs   the file system
//	HEX/config.json    reference, image configuration, sizes
//	HEX/tree/          the same, unpacked; only where a host needed it
//	HEX.lock           shared while a process uses HEX, exclusive to remove it
//	HEX.tmp/           an import or removal under way, or what was killed there
//
// HEX is the sha256 of the image's configuration, which names the digest of
// every layer, so an archive that was imported once is recognised without
// reading its layers. A rootfs:DIR has no configuration: its HEX is over the
// metadata of all its files (see erofs.Scan.Fingerprint).
//
// An image appears by rename(2) after its files are synced. The locks are
// flock(2), which the kernel drops when a process dies however it dies; HEX.tmp
// without a lock holder is litter and is removed by the next import or Prune.
//
// # Trust
//
// Archives and layouts are hostile input. They are never unpacked as files:
// layers are merged as a tree in memory (package layer) whose paths cannot leave
// it, contents stream into the EROFS file, and sizes, counts and depths are
// bounded. Every layer must have the digest its configuration names. The EROFS
// file in the store is our own writing and is trusted.
//
// # Why the builtin image is embedded at build time
//
// Compiling it takes half a minute and a Go toolchain. A user's machine has
// neither to spare, and embedding costs 2 MB of the binary.
package image
