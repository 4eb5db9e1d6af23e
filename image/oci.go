package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/duplex-run/duplex/image/refused"
)

// refName is the annotation of an index entry that holds its tag.
const refName = "org.opencontainers.image.ref.name"

// maxNesting bounds indexes that point to indexes.
const maxNesting = 4

// openOCI reads an image layout (OCI image specification, image-layout.md). As
// with docker archives, the library's types are used but not its reading,
// which neither bounds documents nor checks blobs against their digests.
func openOCI(ref Reference) (*Source, error) {
	layout, err := openLayout(ref.Path)
	if err != nil {
		return nil, err
	}
	raw, err := document(layout, "index.json")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref.Path, err)
	}
	desc, err := layout.choose(raw, ref.Tag, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref.Path, err)
	}
	raw, err = layout.verified(desc)
	if err != nil {
		return nil, err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("manifest: %w: %w", ErrFormat, err)
	}
	config, err := layout.verified(&manifest.Config)
	if err != nil {
		return nil, err
	}
	layers := make([]Layer, len(manifest.Layers))
	for i, l := range manifest.Layers {
		if layers[i].Name, err = blobName(l.Digest); err != nil {
			return nil, err
		}
		layers[i].Digest = l.Digest.Hex
	}
	return newSource(ref, layout, config, layers)
}

// ociLayout opens files of a layout's directory, never outside it.
type ociLayout struct{ dir string }

func openLayout(dir string) (*ociLayout, error) {
	l := &ociLayout{dir}
	if _, err := document(l, "oci-layout"); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: no OCI image layout: %w", dir, ErrFormat)
		}
		return nil, err
	}
	return l, nil
}

func (l *ociLayout) Open(name string) (io.ReadCloser, int64, error) {
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = root.Close() }()
	// Before opening: a FIFO would wait for a writer.
	info, err := root.Stat(name)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s/%s: not a regular file: %w", l.dir, name, ErrFormat)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// blobName is where a layout keeps what has that digest.
func blobName(h v1.Hash) (string, error) {
	if h.Algorithm != "sha256" || len(h.Hex) != 64 || !IsHex(h.Hex) {
		return "", fmt.Errorf("digest %q: %w", h, ErrFormat)
	}
	return "blobs/sha256/" + h.Hex, nil
}

// verified reads a document and checks its digest.
func (l *ociLayout) verified(desc *v1.Descriptor) ([]byte, error) {
	name, err := blobName(desc.Digest)
	if err != nil {
		return nil, err
	}
	raw, err := document(l, name)
	if err != nil {
		return nil, err
	}
	if got := sha256Hex(raw); got != desc.Digest.Hex {
		return nil, fmt.Errorf("%s: sha256:%s: %w", name, got, ErrDigest)
	}
	return raw, nil
}

// choose returns the one manifest of an index that has the tag, or any tag if
// it is empty, and suits this machine.
func (l *ociLayout) choose(rawIndex []byte, tag string, depth int) (*v1.Descriptor, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("index in index in index: %w", refused.ErrLimit)
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(rawIndex))
	if err != nil {
		return nil, fmt.Errorf("index: %w: %w", ErrFormat, err)
	}
	var fit []v1.Descriptor
	var tags []string
	for _, d := range index.Manifests {
		if p := d.Platform; p != nil && (p.OS != "linux" || p.Architecture != "amd64") {
			continue // another machine's, or an attestation ("unknown")
		}
		if name := d.Annotations[refName]; name != "" {
			tags = append(tags, name)
		}
		if tag == "" || d.Annotations[refName] == tag {
			fit = append(fit, d)
		}
	}
	switch {
	case len(fit) == 0 && tag != "":
		return nil, fmt.Errorf("no image tagged %q, the tags are: %.200s: %w", tag, strings.Join(tags, ", "), ErrFormat)
	case len(fit) == 0:
		return nil, fmt.Errorf("no image for linux/amd64: %w", ErrFormat)
	case len(slices.CompactFunc(fit, func(a, b v1.Descriptor) bool { return a.Digest == b.Digest })) > 1:
		return nil, fmt.Errorf("several images, name one by its tag (%.200s): %w", strings.Join(tags, ", "), ErrFormat)
	}
	if isIndex(fit[0].MediaType) {
		raw, err := l.verified(&fit[0])
		if err != nil {
			return nil, err
		}
		return l.choose(raw, "", depth+1)
	}
	return &fit[0], nil
}

func isIndex(t types.MediaType) bool {
	return t == types.OCIImageIndex || t == types.DockerManifestList
}
