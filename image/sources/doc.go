// Package sources imports the images that are no directories: archives of docker's,
// OCI layouts, and the one that duplex carries. It is apart from package image for
// programs that only run what was imported before, and start the sooner:
// decompressors and the embedded image are linked here.
package sources

import "github.com/duplex-run/duplex/image"

// Use has package image import them.
func Use() { image.Writers.Layers, image.Writers.Builtin = writeLayers, writeBuiltin }
