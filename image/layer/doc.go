// Package layer merges the layers of a container image, tar streams with
// whiteouts, into one tree of erofs.Nodes, as docker and umoci would by
// unpacking them one over the other (OCI image specification, layer.md).
//
// Nothing is unpacked: a tree in memory holds the metadata, contents go straight
// into the EROFS file. An entry's path is looked up in that tree, so there is
// no host path that it could leave, and no privilege is needed for owners,
// devices or set-id bits.
//
// What is refused, with the entry's name: a path or hard link with "..", or
// through a symbolic link whose target is absolute or climbs out of the image
// (the target of a link as such may be anything: it means something only
// inside, at run time); a hard link to what is not there; a second entry for
// one file in a layer; names that no Linux file can have; and what is beyond
// the Limits, before it is read.
//
// What is kept as it is: device nodes, which are in real images (docker keeps
// them too) and are inert in a read-only image; whether they can be opened is
// the business of whoever runs it. What is dropped: xattrs that steer the host
// and not the image (SELinux labels, overlayfs's own) or that EROFS has no
// name for.
package layer
