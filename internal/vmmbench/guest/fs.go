package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/vmmbench"
)

// fsSuite reads the shared directory. Each benchmark has a mount of its own, so
// that it finds no cache of the guest's.
func fsSuite() error {
	return errors.Join(
		mounted(func(dir string) error {
			return measure("fs.walk", func() (int64, int64, error) {
				n, err := walk(filepath.Join(dir, vmmbench.ShareTree))
				return n, 0, err
			})
		}),
		mounted(func(dir string) error {
			return measure("fs.read", func() (int64, int64, error) {
				n, err := read(filepath.Join(dir, vmmbench.ShareFile))
				return (n + large - 1) / large, n, err
			})
		}),
	)
}

func mounted(f func(dir string) error) error {
	const dir = "/share"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(vmmbench.ShareTag, dir, "virtiofs", 0, ""); err != nil {
		return &fs.PathError{Op: "mount", Path: dir, Err: err}
	}
	return errors.Join(f(dir), unix.Unmount(dir, 0))
}

// walk looks at every file below dir and returns how many there are.
func walk(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		_, err = d.Info()
		return err
	})
	if want := int64(1 + vmmbench.ShareDirs*(1+vmmbench.ShareFiles)); err == nil && n != want {
		err = errors.New("the tree is not complete")
	}
	return n, err
}

func read(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, large)
	total := int64(0)
	for {
		n, err := f.Read(buf)
		total += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return total, err
		}
	}
	if total != vmmbench.ShareFileSize {
		return total, io.ErrUnexpectedEOF
	}
	return total, nil
}
