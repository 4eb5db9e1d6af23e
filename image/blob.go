package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/duplex-run/duplex/image/erofs"
	"github.com/duplex-run/duplex/image/refused"
)

// Limits on the JSON documents of an image and on its number of layers.
const (
	maxDocument = 4 << 20
	maxLayers   = 512
)

// Blobs opens the parts of an image by the names its manifest has for them.
type Blobs interface {
	// Open returns a part and its size in bytes.
	Open(name string) (io.ReadCloser, int64, error)
}

// Layer is where a layer is and what it has to be.
type Layer struct {
	Name   string
	Digest string // of the blob, hex; empty where the format names none
	DiffID string // of the uncompressed tar, hex
}

// Layers are an image's.
type Layers struct {
	Ref    Reference
	Digest string // the image's
	Blobs  Blobs
	List   []Layer
}

// Writers write the file systems of images that are no directories. Package sources
// sets them, all or nothing: a program without runs what was imported before.
var Writers struct {
	Layers  func(ctx context.Context, out *os.File, l Layers, opts Options) (erofs.Stats, error)
	Builtin func(ctx context.Context, out *os.File, digest string) (erofs.Stats, error)
}

// document reads a small part whole.
func document(b Blobs, name string) ([]byte, error) {
	r, size, err := b.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	if size > maxDocument {
		return nil, fmt.Errorf("%s: %d bytes, at most %d: %w", name, size, maxDocument, refused.ErrLimit)
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxDocument))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return raw, nil
}

func sha256Hex(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

// newSource makes a source of an image's parsed parts.
func newSource(ref Reference, b Blobs, rawConfig []byte, layers []Layer) (*Source, error) {
	parsed, err := v1.ParseConfigFile(bytes.NewReader(rawConfig))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w: %w", ErrFormat, err)
	}
	if p := parsed; p.OS != "" && p.OS != "linux" || p.Architecture != "" && p.Architecture != "amd64" {
		return nil, fmt.Errorf("the image is for %s/%s, this machine is linux/amd64: %w", p.OS, p.Architecture, ErrFormat)
	}
	if len(layers) > maxLayers {
		return nil, fmt.Errorf("%d layers, at most %d: %w", len(layers), maxLayers, refused.ErrLimit)
	}
	if ids := parsed.RootFS.DiffIDs; len(ids) != len(layers) {
		return nil, fmt.Errorf("%d layers, but the configuration names %d: %w", len(layers), len(ids), ErrFormat)
	}
	for i, id := range parsed.RootFS.DiffIDs {
		if id.Algorithm != "sha256" {
			return nil, fmt.Errorf("layer digest %q: %w", id, ErrFormat)
		}
		layers[i].DiffID = id.Hex
	}
	digest := sha256Hex(rawConfig)
	c := parsed.Config
	src := &Source{
		Ref: ref, Digest: digest,
		Config: Config{
			Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: c.WorkingDir,
			User: c.User, StopSignal: c.StopSignal,
		},
	}
	if write := Writers.Layers; write != nil {
		src.Write = func(ctx context.Context, out *os.File, opts Options) (erofs.Stats, error) {
			return write(ctx, out, Layers{Ref: ref, Digest: digest, Blobs: b, List: layers}, opts)
		}
	}
	return src, nil
}

// Explain words the error of an archive that just stops.
func Explain(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the archive is truncated: %w", err)
	}
	return err
}
