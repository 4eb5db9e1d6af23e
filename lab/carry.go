package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/workload"
)

// Bounds on directories that are carried only because an argument names them.
// Options.Carry has none.
const (
	maxNamedFiles = 20_000
	maxNamedBytes = 1 << 30
)

// cargo is what goes into the lab, and what comes back. Paths are absolute and
// clean.
type cargo struct {
	files []string // each a file, followed through links
	libs  []string // interpreters and libraries of carried programs
	dirs  []string
	back  []string // what comes back
	path  []string // directories to add to PATH
}

// plan finds out what has to be carried for o. own holds the files that the
// lab has anyway: its root file system.
func (o *Options) plan(ctx context.Context, own fs.FS) (*cargo, error) {
	c := new(cargo)
	if err := c.command(o, own); err != nil {
		return nil, err
	}
	for _, p := range o.Carry {
		p = o.absolute(p)
		if err := c.add(p); err != nil {
			return nil, &workload.Error{Op: "carry " + p + " into the lab", Err: bare(err)}
		}
	}
	for _, arg := range o.Argv[1:] {
		if o.CarryOnly {
			break
		}
		if err := c.argument(ctx, o, arg, own); err != nil {
			return nil, err
		}
	}
	for _, p := range o.Output {
		c.back = appendNew(c.back, o.absolute(p))
	}
	if o.Cwd != "/" {
		c.back = append(c.back, o.Cwd)
	}
	for _, f := range c.files {
		if err := c.needs(f); err != nil {
			return nil, err
		}
	}
	c.files = slices.DeleteFunc(c.files, c.inDirs)
	c.libs = slices.DeleteFunc(c.libs, func(lib string) bool { return slices.Contains(c.files, lib) })
	return c, nil
}

func (o *Options) absolute(p string) string {
	if !filepath.IsAbs(p) {
		p = filepath.Join(o.Cwd, p)
	}
	return filepath.Clean(p)
}

// command adds the command itself. A plain name means the lab's own command
// where it has one, else the host's.
func (c *cargo) command(o *Options, own fs.FS) error {
	name := o.Argv[0]
	if strings.Contains(name, "/") {
		p := o.absolute(name)
		if exists(own, p) {
			return nil
		}
		if err := c.add(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &workload.Error{Op: "carry " + p + " into the lab", Err: bare(err)}
		}
		return nil // a missing command is the lab's to report: 127
	}
	for dir := range strings.SplitSeq(launch.DefaultPath, ":") {
		if exists(own, path.Join(dir, name)) {
			return nil
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return nil
	}
	p = o.absolute(p)
	c.path = append(c.path, filepath.Dir(p))
	return c.add(p)
}

// argument adds what an argument names: itself, or what follows an equals sign
// (--out=FILE). A path that the lab has itself means the lab's own. One that
// does not exist yet, in a directory that does, may be about to be written.
func (c *cargo) argument(ctx context.Context, o *Options, arg string, own fs.FS) error {
	if _, value, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(arg, "-") {
		arg = value
	}
	if arg == "" || strings.HasPrefix(arg, "-") || len(arg) > 4096 || strings.ContainsRune(arg, 0) {
		return nil
	}
	p := o.absolute(arg)
	if exists(own, p) || kernelOwn(p) {
		return nil
	}
	info, err := os.Stat(p)
	if err != nil {
		if parent, err := os.Stat(filepath.Dir(p)); err == nil && parent.IsDir() && strings.Contains(arg, "/") {
			c.back = append(c.back, p)
		}
		return nil
	}
	if info.IsDir() {
		if err := bounded(ctx, p); err != nil {
			return &workload.Error{Op: "carry " + p + " into the lab", Err: err,
				Remedy: "--carry " + p + " carries it whatever its size"}
		}
	} else if !info.Mode().IsRegular() {
		return nil
	}
	if err := c.add(p); err != nil {
		return &workload.Error{Op: "carry " + p + " into the lab", Err: bare(err)}
	}
	return nil
}

// add adds the file or directory at the absolute path p.
func (c *cargo) add(p string) error {
	info, err := os.Stat(p)
	switch {
	case err != nil:
		return err
	case p == "/" || kernelOwn(p):
		return errors.New("is the kernel's, or all there is")
	case info.IsDir():
		c.dirs = appendNew(c.dirs, p)
		c.back = appendNew(c.back, p)
	case info.Mode().IsRegular():
		c.files = appendNew(c.files, p)
		c.back = appendNew(c.back, p)
	default:
		return errors.New("is neither a regular file nor a directory")
	}
	return nil
}

// inDirs says whether f comes with a carried directory. Placed by itself as well,
// it would be beneath the directory's mount, and look as if the lab had changed it.
func (c *cargo) inDirs(f string) bool {
	info, err := os.Lstat(f)
	return err == nil && info.Mode().IsRegular() &&
		slices.ContainsFunc(c.dirs, func(d string) bool { return strings.HasPrefix(f, d+"/") })
}

func appendNew(list []string, p string) []string {
	if slices.Contains(list, p) {
		return list
	}
	return append(list, p)
}

// kernelOwn says whether p is on one of the file systems that each machine has
// of its own.
func kernelOwn(p string) bool {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return p == "/" || p == "/run" || p == "/tmp"
}

// exists says whether the absolute path p is in the file system own.
func exists(own fs.FS, p string) bool {
	name := strings.TrimPrefix(path.Clean(p), "/")
	if name == "" {
		return true
	}
	_, err := fs.Stat(own, name)
	return err == nil
}

var errTooMuch = fmt.Errorf("holds more than %d files or %d bytes", maxNamedFiles, maxNamedBytes)

// bounded fails when dir holds more than is carried without being asked to.
func bounded(ctx context.Context, dir string) error {
	files, size := 0, int64(0)
	return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return bare(err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				size += info.Size()
			}
		}
		if files++; files > maxNamedFiles || size > maxNamedBytes {
			return errTooMuch
		}
		return nil
	})
}

// bare strips the path from an error whose context names it already.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
