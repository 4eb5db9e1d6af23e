// Package sources reads the images that are not directories: archives of docker's,
// OCI layouts, and the one that duplex carries. It is apart from package image for
// programs that only run what was imported before, and start the sooner: tar
// readers, decompressors and the embedded image are linked here.
package sources

import "github.com/duplex-run/duplex/image"

// Use has package image read them.
func Use() {
	image.Open = map[image.Kind]func(image.Reference) (*image.Source, error){
		image.KindBuiltin: openBuiltin, image.KindDockerArchive: openDockerArchive, image.KindOCI: openOCI,
	}
}
