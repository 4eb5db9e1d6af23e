package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/kernel"
)

// source is where the kernel's source comes from.
type source struct {
	// id identifies the content, label says what it is.
	id, label string
	// packed says that the tree has to be unpacked, which takes room.
	packed bool
	// tree returns the directory with the source; work is empty and its to fill.
	tree func(ctx context.Context, work string, progress kernel.Progress) (string, error)
}

// findSource finds what --source names: "" is the distribution's newest source
// package, a name linux-source-* that one, anything else a directory or a tarball.
func findSource(ctx context.Context, name string, progress kernel.Progress) (source, error) {
	if name == "" || kernel.IsSourcePackage(name) && !exists(name) {
		return packageSource(ctx, name)
	}
	info, err := os.Stat(name)
	if err != nil {
		return source{}, &workload.Error{Op: "find the kernel's source", Err: err,
			Remedy: "--source takes a package (linux-source-6.1), a directory or a tarball"}
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return source{}, err
	}
	if info.IsDir() {
		return dirSource(ctx, path, progress)
	}
	return tarSource(ctx, path)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func packageSource(ctx context.Context, name string) (source, error) {
	pkg, err := kernel.FindSource(ctx, name)
	if err != nil {
		return source{}, err
	}
	return source{
		id: "package " + pkg.String(), label: pkg.String(), packed: true,
		tree: func(ctx context.Context, work string, progress kernel.Progress) (string, error) {
			deb, err := pkg.Download(ctx, progress)
			if err != nil {
				return "", err
			}
			progress.Report("unpack the source", -1)
			tarball, err := kernel.UnpackSource(ctx, deb, filepath.Join(work, "deb"))
			if err != nil {
				return "", err
			}
			return untar(ctx, tarball, work)
		},
	}, nil
}

func tarSource(ctx context.Context, path string) (source, error) {
	f, err := os.Open(path)
	if err != nil {
		return source{}, err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, &ctxReader{ctx, f}); err != nil {
		return source{}, fmt.Errorf("read %s: %w", path, err)
	}
	return source{
		id: "tarball " + hex.EncodeToString(h.Sum(nil)), label: path, packed: true,
		tree: func(ctx context.Context, work string, progress kernel.Progress) (string, error) {
			progress.Report("unpack the source", -1)
			return untar(ctx, path, work)
		},
	}, nil
}

func dirSource(ctx context.Context, path string, progress kernel.Progress) (source, error) {
	if err := checkTree(path); err != nil { // before a home directory is hashed
		return source{}, err
	}
	progress.Report("hash the source", -1)
	sum, err := hashTree(ctx, path)
	if err != nil {
		return source{}, fmt.Errorf("read %s: %w", path, err)
	}
	return source{
		id: "directory " + sum, label: path,
		tree: func(context.Context, string, kernel.Progress) (string, error) { return path, nil },
	}, nil
}

// untar unpacks the tarball, which has one directory at its top, to work/source.
// tar refuses names that lead outside.
func untar(ctx context.Context, tarball, work string) (string, error) {
	dir := filepath.Join(work, "source")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	cmd := group(exec.CommandContext(ctx, "tar", "--extract", "--no-same-owner", "--strip-components=1",
		"--directory", dir, "--file", tarball))
	cmd.Env = append(os.Environ(), "LC_ALL=C") // diskFull knows its words
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w: %s", filepath.Base(tarball), err, lastLines(string(out), 3))
	}
	return dir, nil
}

// checkTree says what a directory lacks of a kernel's source for x86.
func checkTree(dir string) error {
	for _, c := range []struct{ name, why string }{
		{"Makefile", "no kernel source: it has no Makefile"},
		{"Kconfig", "no kernel source: it has no Kconfig"},
		{"arch/x86/Makefile", "the source lacks x86: no arch/x86/Makefile"},
	} {
		if !exists(filepath.Join(dir, c.name)) {
			return &workload.Error{Op: "read the kernel's source " + dir, Err: errors.New(c.why)}
		}
	}
	for _, name := range []string{".config", "include/config", "arch/x86/include/generated"} {
		if exists(filepath.Join(dir, name)) {
			return &workload.Error{Op: "read the kernel's source " + dir, Err: fmt.Errorf("it was built in: there is %s", name),
				Remedy: "'make mrproper' in it removes that (and its .config); the build goes elsewhere"}
		}
	}
	return nil
}
