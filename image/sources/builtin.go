package sources

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/image/erofs"
	"github.com/duplex-run/duplex/internal/embedded"
)

// writeBuiltin unpacks the image that this binary carries.
func writeBuiltin(ctx context.Context, out *os.File, digest string) (erofs.Stats, error) {
	archive, err := embedded.Builtin()
	if err != nil {
		return erofs.Stats{}, err
	}
	w := erofs.NewWriter(out)
	defer w.Close()
	root := &erofs.Node{Mode: unix.S_IFDIR | 0o755, Children: map[string]*erofs.Node{}}
	for _, d := range image.BuiltinDirs {
		put(root, d.Path, &erofs.Node{Mode: unix.S_IFDIR | d.Mode, Children: map[string]*erofs.Node{}})
	}
	if err := addCommands(ctx, w, root, archive); err != nil {
		return erofs.Stats{}, fmt.Errorf("embedded archive: %w", err)
	}
	for _, f := range image.BuiltinFiles {
		data, err := w.Add(ctx, strings.NewReader(f.Content), int64(len(f.Content)))
		if err != nil {
			return erofs.Stats{}, err
		}
		put(root, f.Path, &erofs.Node{Mode: unix.S_IFREG | f.Mode, Data: data})
	}
	return w.Finish(root, digest)
}

// addCommands moves u-root's /bbin to /bin and leaves out the rest. The archive
// is our own, so it needs no suspicion.
func addCommands(ctx context.Context, w *erofs.Writer, root *erofs.Node, archive []byte) error {
	records := cpio.Newc.Reader(bytes.NewReader(archive))
	return cpio.ForEachRecord(records, func(r cpio.Record) error {
		name, inBin := strings.CutPrefix(cpio.Normalize(r.Name), "bbin/")
		if !inBin {
			return nil
		}
		n := &erofs.Node{Mode: uint32(r.Mode)}
		body := io.NewSectionReader(r, 0, int64(r.FileSize))
		switch n.Type() {
		case unix.S_IFLNK:
			target, err := io.ReadAll(body)
			if err != nil {
				return err
			}
			n.Target = string(target)
		case unix.S_IFREG:
			var err error
			if n.Data, err = w.Add(ctx, body, int64(r.FileSize)); err != nil {
				return err
			}
		}
		put(root, path.Join("bin", name), n)
		return nil
	})
}

// put places n at a path whose directories exist.
func put(root *erofs.Node, name string, n *erofs.Node) {
	dir := root
	elems := strings.Split(name, "/")
	for _, e := range elems[:len(elems)-1] {
		dir = dir.Children[e]
	}
	dir.Children[elems[len(elems)-1]] = n
}
