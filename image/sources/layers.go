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

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/image/erofs"
	"github.com/duplex-run/duplex/image/layer"
)

// maxStream bounds an uncompressed layer: contents, headers and padding.
const maxStream = 2 * (64 << 30)

// maxWindow bounds the memory of a zstd decoder; docker's layers need 8 MiB.
const maxWindow = 128 << 20

// writeLayers merges the layers of an image and writes them into out.
func writeLayers(ctx context.Context, out *os.File, image image.Layers, opts image.Options) (erofs.Stats, error) {
	w := erofs.NewWriter(out)
	defer w.Close()
	m := layer.NewMerger(w, layer.DefaultLimits)
	for i, l := range image.List {
		opts.Say("importing %s: layer %d of %d", image.Ref, i+1, len(image.List))
		if err := apply(ctx, l, image.Blobs, m); err != nil {
			return erofs.Stats{}, fmt.Errorf("layer %d of %d: %w", i+1, len(image.List), err)
		}
	}
	return w.Finish(m.Root(), image.Digest)
}

// apply reads the layer into m and checks that it is the layer it should be.
// That comes last, but nothing is kept of an import that fails.
func apply(ctx context.Context, l image.Layer, b image.Blobs, m *layer.Merger) (err error) {
	blob, _, err := b.Open(l.Name)
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
		return image.Explain(err)
	}
	// What follows the tar's end mark is part of both digests.
	if _, err := io.Copy(io.Discard, bounded); err != nil {
		return image.Explain(err)
	}
	if _, err := io.Copy(io.Discard, packed); err != nil {
		return err
	}
	if err := packed.is(l.Digest); err != nil {
		return err
	}
	return bounded.is(l.DiffID)
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
			return nil, nil, image.Explain(fmt.Errorf("gzip: %w", err))
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
