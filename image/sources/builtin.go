package sources

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
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
	"github.com/duplex-run/duplex/internal/workload"
)

// builtinDirs and builtinFiles are what the builtin image has beside u-root's
// commands. Modes as in Debian.
var builtinDirs = []struct {
	path string
	mode uint32
}{
	{"bin", 0o755}, {"dev", 0o755}, {"etc", 0o755}, {"home", 0o755}, {"mnt", 0o755},
	{"proc", 0o555}, {"root", 0o700}, {"run", 0o755}, {"sys", 0o555}, {"tmp", 0o1777},
	{"usr", 0o755}, {"usr/bin", 0o755}, {"var", 0o755}, {"var/tmp", 0o1777},
}

var builtinFiles = []struct {
	path    string
	mode    uint32
	content string
}{
	{"etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n" +
		"daemon:x:1:1:daemon:/:/bin/false\n" +
		"user:x:1000:1000:user:/home:/bin/sh\n" +
		"nobody:x:65534:65534:nobody:/:/bin/false\n"},
	{"etc/group", 0o644, "root:x:0:\ndaemon:x:1:\ntty:x:5:\nusers:x:100:user\nuser:x:1000:\nnogroup:x:65534:\n"},
	{"etc/os-release", 0o644, "ID=duplex\nNAME=\"duplex builtin\"\nPRETTY_NAME=\"duplex builtin image (u-root)\"\n"},
	{"etc/nsswitch.conf", 0o644, "hosts: files dns\n"},
}

// openBuiltin takes the image that this binary carries. Its digest is over the
// id of the embedded archive and the files above.
func openBuiltin(ref image.Reference) (*image.Source, error) {
	id, err := embedded.BuiltinID()
	if errors.Is(err, embedded.ErrMissing) {
		return nil, &workload.Error{Op: "image builtin", Err: err,
			Remedy: "Build duplex with 'make build'."}
	}
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "builtin %s %v %v", id, builtinDirs, builtinFiles)
	digest := hex.EncodeToString(h.Sum(nil))
	return &image.Source{
		Ref: ref, Digest: digest,
		Config: image.Config{Env: []string{"PATH=/bin:/usr/bin"}, Cmd: []string{"/bin/sh"}},
		Write: func(ctx context.Context, out *os.File, opts image.Options) (erofs.Stats, error) {
			opts.Say("unpacking the builtin image (once)")
			return writeBuiltin(ctx, out, digest)
		},
	}, nil
}

func writeBuiltin(ctx context.Context, out *os.File, digest string) (erofs.Stats, error) {
	archive, err := embedded.Builtin()
	if err != nil {
		return erofs.Stats{}, err
	}
	w := erofs.NewWriter(out)
	defer w.Close()
	root := &erofs.Node{Mode: unix.S_IFDIR | 0o755, Children: map[string]*erofs.Node{}}
	for _, d := range builtinDirs {
		put(root, d.path, &erofs.Node{Mode: unix.S_IFDIR | d.mode, Children: map[string]*erofs.Node{}})
	}
	if err := addCommands(ctx, w, root, archive); err != nil {
		return erofs.Stats{}, fmt.Errorf("embedded archive: %w", err)
	}
	for _, f := range builtinFiles {
		data, err := w.Add(ctx, strings.NewReader(f.content), int64(len(f.content)))
		if err != nil {
			return erofs.Stats{}, err
		}
		put(root, f.path, &erofs.Node{Mode: unix.S_IFREG | f.mode, Data: data})
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
