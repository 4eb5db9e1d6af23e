package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// send writes the regular files that are new or changed at or below the paths
// to return, and the changed ones among the carried files, as a tar stream.
func (c *carried) send(w io.Writer) error {
	out := tar.NewWriter(w)
	sent := make(map[string]bool)
	for file, was := range c.made {
		sent[file] = true
		now, err := stampOf(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && now == was {
			continue
		}
		if err == nil {
			err = sendFile(out, os.DirFS("/"), file[1:], file[1:])
		}
		if err != nil {
			return fmt.Errorf("return %s: %w", file, err)
		}
	}
	for _, p := range c.back {
		from, at, err := c.written(p)
		if err == nil {
			err = c.sendTree(out, from, at, p, sent)
		}
		if err != nil {
			return fmt.Errorf("return %s: %w", p, err)
		}
	}
	return out.Close()
}

// written returns the file system that holds only what was written at and below
// p since the machine started, and where in it that is.
func (c *carried) written(p string) (fs.FS, string, error) {
	if upper, ok := c.upper[p]; ok {
		return upper.FS(), ".", nil
	}
	at := p[1:]
	if at == "" {
		at = "."
	}
	var st unix.Statfs_t
	err := unix.Statfs(p, &st)
	if err == nil && st.Type == unix.TMPFS_MAGIC { // /tmp and /run start empty
		return os.DirFS("/"), at, nil
	}
	return c.root.FS(), at, nil
}

// sendTree sends the regular files at and below at, as name and below, leaving
// out those sent already and those on other mounts.
func (c *carried) sendTree(out *tar.Writer, from fs.FS, at, name string, sent map[string]bool) error {
	var dev uint64
	return fs.WalkDir(from, at, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // nothing was written there
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			if p == at {
				dev = st.Dev
			}
			if st.Dev != dev && d.IsDir() {
				return fs.SkipDir
			}
			if st.Dev != dev {
				return nil
			}
		}
		full := name
		if p != at {
			full = path.Join(name, strings.TrimPrefix(p, at+"/"))
		}
		if d.IsDir() && slices.Contains(c.skip, full) {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() || sent[full] {
			return nil
		}
		sent[full] = true
		return sendFile(out, from, p, full[1:])
	})
}

func sendFile(out *tar.Writer, from fs.FS, file, name string) error {
	f, err := from.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	head := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(),
		Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(), Format: tar.FormatPAX}
	if err := out.WriteHeader(head); err != nil {
		return err
	}
	_, err = io.CopyN(out, f, info.Size())
	return err
}
