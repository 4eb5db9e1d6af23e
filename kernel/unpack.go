package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
)

// Bounds on what a kernel package may unpack to; Debian's cloud kernel has 1,126
// files in 106 MB, its generic kernel 4,500 in 400 MB.
const (
	maxUnpacked = 4 << 30
	maxFiles    = 100_000
)

// unpack takes the kernel, its configuration and its modules out of the package
// deb into the new directory dir. dpkg-deb reads the package format; nothing of
// the package is executed.
func unpack(ctx context.Context, deb, dir, release string, progress Progress) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	packed, err := os.Stat(deb)
	if err != nil {
		return err
	}

	runtime.LockOSThread() // see runTool
	defer runtime.UnlockOSThread()
	cmd := tool(ctx, nil, "dpkg-deb", "--fsys-tarfile", deb)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	// xz packs kernels to about a quarter.
	u := unpacker{root: root, release: release, expect: 4 * packed.Size(), progress: progress}
	err = u.all(tar.NewReader(stdout))
	if err != nil {
		_ = cmd.Cancel()
	} else {
		_, err = io.Copy(io.Discard, stdout) // padding after the archive's end
	}
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = toolError(cmd, werr, stderr.String())
	}
	if err != nil {
		return err
	}
	for _, name := range []string{imageName, configName, path.Join(modulesName, "modules.builtin")} {
		if _, err := root.Stat(name); err != nil {
			return fmt.Errorf("the package has no %s", name)
		}
	}
	return nil
}

// unpacker writes the wanted members of a package's archive under root, which no
// name or link can leave (os.Root).
type unpacker struct {
	root        *os.Root
	release     string
	progress    Progress
	expect      int64
	files, size int64
}

func (u *unpacker) all(tr *tar.Reader) error {
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			u.progress.Report("unpack", 1)
			return nil
		}
		if err != nil {
			return err
		}
		name := u.target(h.Name)
		if name == "" || h.Typeflag != tar.TypeReg {
			continue
		}
		if u.files++; u.files > maxFiles {
			return fmt.Errorf("more than %d files", maxFiles)
		}
		if u.size += h.Size; u.size > maxUnpacked {
			return fmt.Errorf("more than %d bytes", int64(maxUnpacked))
		}
		if err := u.file(name, tr); err != nil {
			return err
		}
		u.progress.Report("unpack", min(1, float64(u.size)/float64(u.expect)))
	}
}

// target maps a member's name to the name in the kernel directory, "" for what
// is not wanted (System.map, documentation).
func (u *unpacker) target(member string) string {
	member = path.Clean("/" + member)
	switch member {
	case "/boot/vmlinuz-" + u.release:
		return imageName
	case "/boot/config-" + u.release:
		return configName
	}
	for _, prefix := range []string{"/lib/modules/", "/usr/lib/modules/"} {
		if rest, ok := strings.CutPrefix(member, prefix+u.release+"/"); ok {
			return path.Join(modulesName, rest)
		}
	}
	return ""
}

func (u *unpacker) file(name string, r io.Reader) error {
	if err := u.root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
