package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// hashTree hashes what a build can see of a directory: names, links, content and
// the executable bit; not .git, owners and times.
func hashTree(ctx context.Context, dir string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch {
		case rel == ".git" && d.IsDir():
			return fs.SkipDir
		case rel == ".git":
			return nil // of a worktree: a file
		case d.Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(h, "l %q %q\n", rel, to)
			return err
		case d.Type().IsRegular():
			return hashFile(h, path, rel)
		}
		return nil
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

func hashFile(w io.Writer, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "f %q %t %d\n", name, info.Mode()&0o100 != 0, info.Size()); err != nil {
		return err
	}
	_, err = io.CopyN(w, f, info.Size())
	return err
}

// ctxReader ends reading with its context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
