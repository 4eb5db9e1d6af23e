package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/workload"
)

// Built are the files of a kernel that was built with everything built in.
type Built struct {
	// Name is what --kernel is to take: letters, digits, and "+-._".
	Name string
	// Release is what `uname -r` says; Source names the source package or file.
	Release, Source string
	// Vmlinux is the ELF kernel to boot, Config its configuration. BzImage is the
	// same kernel for monitors that want that; it may be empty.
	Vmlinux, Config, BzImage string
}

func builtDir(name string) (string, error) {
	for _, c := range name {
		if !strings.ContainsRune("+-._", c) && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return "", fmt.Errorf("kernel name %q: %q is not allowed", name, c)
		}
	}
	if name == "" || name[0] == '.' {
		return "", fmt.Errorf("kernel name %q", name)
	}
	return hostdir.Cache("kernels", name)
}

// Install copies b into the cache, at once or not at all. A kernel of the same
// name is replaced. It checks that what it installs is a kernel.
func Install(ctx context.Context, b Built) (*Kernel, error) {
	dir, err := builtDir(b.Name)
	if err != nil {
		return nil, err
	}
	var k *Kernel
	err = withStaging(ctx, func(staging string) error {
		made := filepath.Join(staging, "kernel")
		if err := b.copyTo(made); err != nil {
			return err
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.Rename(made, dir); err != nil {
			return err
		}
		k, err = load(dir)
		return err
	})
	return k, err
}

func (b Built) copyTo(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, c := range []struct {
		from, to string
		check    func(*os.File) error
	}{
		{b.Vmlinux, builtName, prepareBuilt}, {b.Config, configName, nil}, {b.BzImage, "bzImage", nil},
	} {
		if c.from == "" {
			continue
		}
		if err := copyFile(c.from, filepath.Join(dir, c.to), c.check); err != nil {
			return fmt.Errorf("install %s: %w", filepath.Base(c.from), err)
		}
	}
	data, err := json.Marshal(meta{Release: b.Release, Package: b.Source, Built: true})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, metaName), data, 0o600)
}

// prepareBuilt checks that f is a kernel and takes the zeros out of it.
func prepareBuilt(f *os.File) error {
	if _, err := identify(f); err != nil {
		return err
	}
	return trimSegments(f)
}

// copyFile copies and lets check look at the copy before it is on disk.
func copyFile(from, to string, check func(*os.File) error) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil && check != nil {
		err = check(out)
	}
	if err == nil {
		err = out.Sync() // an installed kernel is never looked into again
	}
	return errors.Join(err, out.Close())
}

// Remove removes a kernel of the cache, at once or not at all. A microVM that was
// booted from it runs on. Errors are *workload.Error.
func Remove(ctx context.Context, k *Kernel) error {
	dir := filepath.Dir(k.Image)
	err := withStaging(ctx, func(staging string) error {
		if _, err := load(dir); err != nil { // somebody else was quicker
			return err
		}
		return os.Rename(dir, filepath.Join(staging, "removed"))
	})
	if err != nil {
		return &workload.Error{Op: "remove the kernel " + k.Name, Err: err}
	}
	return nil
}
