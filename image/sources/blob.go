package sources

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/image/erofs"
	"github.com/duplex-run/duplex/image/layer"
)

// Limits on the JSON documents of an image and on its number of layers.
const (
	maxDocument = 4 << 20
	maxLayers   = 512
)

// maxStream bounds an uncompressed layer: contents, headers and padding.
const maxStream = 2 * (64 << 30)

// maxWindow bounds the memory of a zstd decoder; docker's layers need 8 MiB.
const maxWindow = 128 << 20

// blobs opens the parts of an image by the names its manifest has for them.
type blobs interface {
	// open returns a part and its size in bytes.
	open(name string) (io.ReadCloser, int64, error)
}

// layerBlob is a layer: where it is and what it has to be.
type layerBlob struct {
	name   string
	digest string // of the blob, hex; empty where the format names none
	diffID string // of the uncompressed tar, hex
}

// document reads a small part whole.
func document(b blobs, name string) ([]byte, error) {
	r, size, err := b.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	if size > maxDocument {
		return nil, fmt.Errorf("%s: %d bytes, at most %d: %w", name, size, maxDocument, layer.ErrLimit)
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
func newSource(ref image.Reference, b blobs, rawConfig []byte, layers []layerBlob) (*image.Source, error) {
	parsed, err := v1.ParseConfigFile(bytes.NewReader(rawConfig))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w: %w", image.ErrFormat, err)
	}
	if p := parsed; p.OS != "" && p.OS != "linux" || p.Architecture != "" && p.Architecture != "amd64" {
		return nil, fmt.Errorf("the image is for %s/%s, this machine is linux/amd64: %w", p.OS, p.Architecture, image.ErrFormat)
	}
	if len(layers) > maxLayers {
		return nil, fmt.Errorf("%d layers, at most %d: %w", len(layers), maxLayers, layer.ErrLimit)
	}
	if ids := parsed.RootFS.DiffIDs; len(ids) != len(layers) {
		return nil, fmt.Errorf("%d layers, but the configuration names %d: %w", len(layers), len(ids), image.ErrFormat)
	}
	for i, id := range parsed.RootFS.DiffIDs {
		if id.Algorithm != "sha256" {
			return nil, fmt.Errorf("layer digest %q: %w", id, image.ErrFormat)
		}
		layers[i].diffID = id.Hex
	}
	digest := sha256Hex(rawConfig)
	c := parsed.Config
	return &image.Source{
		Ref: ref, Digest: digest,
		Config: image.Config{
			Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: c.WorkingDir,
			User: c.User, StopSignal: c.StopSignal,
		},
		Write: func(ctx context.Context, out *os.File, opts image.Options) (erofs.Stats, error) {
			w := erofs.NewWriter(out)
			defer w.Close()
			m := layer.NewMerger(w, layer.DefaultLimits)
			for i, l := range layers {
				opts.Say("importing %s: layer %d of %d", ref, i+1, len(layers))
				if err := l.apply(ctx, b, m); err != nil {
					return erofs.Stats{}, fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
				}
			}
			return w.Finish(m.Root(), digest)
		},
	}, nil
}

// apply reads the layer into m and checks that it is the layer it should be.
// That comes last, but nothing is kept of an import that fails.
func (l layerBlob) apply(ctx context.Context, b blobs, m *layer.Merger) (err error) {
	blob, _, err := b.open(l.name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	packed := &hashing{r: blob, h: sha256.New()}
	plain, done, err := decompress(packed)
	if err != nil {
		return err
	}
	defer done()
	bounded := &hashing{r: plain, h: sha256.New(), left: maxStream, limited: true}
	if err := m.Apply(ctx, bounded); err != nil {
		return explain(err)
	}
	// What follows the tar's end mark is part of both digests.
	if _, err := io.Copy(io.Discard, bounded); err != nil {
		return explain(err)
	}
	if _, err := io.Copy(io.Discard, packed); err != nil {
		return err
	}
	if err := packed.is(l.digest); err != nil {
		return err
	}
	return bounded.is(l.diffID)
}

// explain words the error of an archive that just stops.
func explain(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the archive is truncated: %w", err)
	}
	return err
}

// hashing passes a stream through a hash and, if limited, ends it with an error
// beyond a number of bytes.
type hashing struct {
	r       io.Reader
	h       hash.Hash
	left    int64
	limited bool
}

func (s *hashing) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.h.Write(p[:n])
	if s.left -= int64(n); s.limited && s.left < 0 {
		return 0, fmt.Errorf("uncompressed layer of more than %d GiB: %w", int64(maxStream>>30), layer.ErrLimit)
	}
	return n, err
}

// is compares what passed with a digest; an empty one is unknown.
func (s *hashing) is(want string) error {
	if got := hex.EncodeToString(s.h.Sum(nil)); want != "" && got != want {
		return fmt.Errorf("sha256:%s, expected sha256:%s: %w", got, want, image.ErrDigest)
	}
	return nil
}

// decompress recognises gzip and zstd by their first bytes; anything else is
// taken as it is. The caller calls the function when done.
func decompress(r io.Reader) (io.Reader, func(), error) {
	buffered := bufio.NewReaderSize(r, 1<<18)
	magic, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, nil, explain(fmt.Errorf("gzip: %w", err))
		}
		return z, func() { _ = z.Close() }, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, fmt.Errorf("zstd: %w", err)
		}
		return z, z.Close, nil
	}
	return buffered, func() {}, nil
}
