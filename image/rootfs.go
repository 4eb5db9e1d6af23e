package image

import (
	"context"
	"os"
	"path/filepath"

	"github.com/duplex-run/duplex/image/erofs"
)

// defaultPath is docker's PATH for an image that names none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// openRootfs takes a directory of the host as an image without configuration.
func openRootfs(ctx context.Context, ref Reference) (*Source, error) {
	// The directory itself may be named through a link; below it links are kept.
	dir, err := filepath.EvalSymlinks(ref.Path)
	if err != nil {
		return nil, err
	}
	scan, err := erofs.ScanFiles(ctx, erofs.Source{Path: dir, At: "/"})
	if err != nil {
		return nil, err
	}
	return &Source{
		Ref:    ref,
		Digest: scan.Fingerprint(),
		Config: Config{Env: []string{defaultPath}, Cmd: []string{"/bin/sh"}},
		Write: func(ctx context.Context, out *os.File, opts Options) (erofs.Stats, error) {
			opts.Say("packing %s", dir)
			return scan.Write(ctx, out)
		},
	}, nil
}
