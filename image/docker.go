package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/image/refused"
)

// maxMembers bounds the files of a docker-archive: some for each layer.
const maxMembers = 16 * maxLayers

// openDockerArchive reads what `docker save` writes: a tar with manifest.json,
// which names the configuration and the layers among the other members.
//
// The archive is indexed here instead of by go-containerregistry's tarball
// package, which reads documents of any size into memory and every compressed
// layer twice.
func openDockerArchive(ref Reference) (*Source, error) {
	archive, err := indexArchive(ref.Path)
	if err != nil {
		return nil, err
	}
	raw, err := document(archive, "manifest.json")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref.Path, err)
	}
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return nil, fmt.Errorf("manifest.json: %w: %w", ErrFormat, err)
	}
	if len(manifest) != 1 {
		return nil, fmt.Errorf("%s: holds %d images, want one: %w", ref.Path, len(manifest), ErrFormat)
	}
	config, err := document(archive, manifest[0].Config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref.Path, err)
	}
	if want := digestInName(manifest[0].Config); want != "" && want != sha256Hex(config) {
		return nil, fmt.Errorf("%s: sha256:%s: %w", manifest[0].Config, sha256Hex(config), ErrDigest)
	}
	layers := make([]Layer, len(manifest[0].Layers))
	for i, name := range manifest[0].Layers {
		layers[i].Name = name
		if strings.HasPrefix(name, "blobs/sha256/") {
			layers[i].Digest = digestInName(name)
		}
	}
	return newSource(ref, archive, config, layers)
}

// digestInName returns the digest that a member's name claims, or "".
func digestInName(name string) string {
	hex := strings.TrimSuffix(path.Base(name), ".json")
	if len(hex) != 64 || !IsHex(hex) || strings.HasSuffix(name, "/") {
		return ""
	}
	return hex
}

// dockerArchive is where the members of an archive are.
type dockerArchive struct {
	path    string
	members map[string]span
	links   map[string]string // older dockers link equal layers
}

type span struct{ offset, size int64 }

func indexArchive(name string) (_ *dockerArchive, err error) {
	f, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if tool := compressor(f); tool != "" {
		return nil, fmt.Errorf("%s: compressed as a whole, run %s on it first: %w", name, tool, ErrFormat)
	}
	a := &dockerArchive{path: name, members: map[string]span{}, links: map[string]string{}}
	r := tar.NewReader(f) // seeks over contents, and leaves f at them
	for {
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, Explain(fmt.Errorf("%s: read tar: %w", name, err))
		}
		if len(a.members)+len(a.links) >= maxMembers {
			return nil, fmt.Errorf("%s: more than %d members: %w", name, maxMembers, refused.ErrLimit)
		}
		member := path.Clean("/" + hdr.Name)
		switch hdr.Typeflag {
		case tar.TypeReg:
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			a.members[member] = span{at, hdr.Size}
		case tar.TypeSymlink:
			a.links[member] = path.Join(path.Dir(member), hdr.Linkname)
		case tar.TypeLink:
			a.links[member] = path.Clean("/" + hdr.Linkname)
		}
	}
}

// compressor names the tool that decompresses f, or "". An archive that is
// compressed as a whole cannot be read from the middle.
func compressor(f *os.File) string {
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil {
		return ""
	}
	switch {
	case magic[0] == 0x1f && magic[1] == 0x8b:
		return "gunzip"
	case string(magic[:]) == "\x28\xb5\x2f\xfd":
		return "unzstd"
	case string(magic[:]) == "\xfd7zX":
		return "unxz"
	case string(magic[:3]) == "BZh":
		return "bunzip2"
	}
	return ""
}

func (a *dockerArchive) Open(name string) (io.ReadCloser, int64, error) {
	member := path.Clean("/" + name)
	if target, ok := a.links[member]; ok {
		member = target // one step, as docker writes them
	}
	at, ok := a.members[member]
	if !ok {
		return nil, 0, fmt.Errorf("%q: not in the archive: %w", name, ErrFormat)
	}
	f, err := openRegular(a.path)
	if err != nil {
		return nil, 0, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, at.offset, at.size), f}, at.size, nil
}

// openRegular opens a regular file, never waiting for what is something else.
func openRegular(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("not a regular file: %w", ErrFormat)}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
