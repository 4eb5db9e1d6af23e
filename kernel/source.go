package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/lazyregexp"
	"github.com/duplex-run/duplex/internal/workload"
)

// SourcePackage is a package of the distribution with the kernel's source.
type SourcePackage struct {
	ref packageRef
}

func (p SourcePackage) String() string { return p.ref.String() }

// sourceName matches linux-source-6.1; sourceVersion what becomes part of file
// names and of arguments.
var (
	sourceName    = lazyregexp.New(`^linux-source-[0-9]+(\.[0-9]+)+$`)
	sourceVersion = lazyregexp.New(`^[0-9][A-Za-z0-9.+~:-]*$`)
)

// IsSourcePackage says whether name has the shape of a source package's.
func IsSourcePackage(name string) bool { return sourceName().MatchString(name) }

// FindSource asks apt for the newest version of the source package name; with ""
// of the newest linux-source package that there is. Errors are *workload.Error.
func FindSource(ctx context.Context, name string) (SourcePackage, error) {
	if err := haveTools(); err != nil {
		return SourcePackage{}, &workload.Error{Op: "find the kernel's source", Err: err,
			Remedy: "finding a source package needs apt-get and dpkg-deb (Debian, Ubuntu); give a directory or tarball with --source instead"}
	}
	if name == "" {
		var out bytes.Buffer
		if err := runTool(tool(ctx, &out, "apt-cache", "pkgnames", "linux-source-")); err != nil {
			return SourcePackage{}, aptError("find the kernel's source package", err)
		}
		if name = newestSource(out.String()); name == "" {
			return SourcePackage{}, aptError("find the kernel's source package", errors.New("the package lists have no linux-source-*"))
		}
	}
	var out bytes.Buffer
	if err := runTool(tool(ctx, &out, "apt-cache", "show", "--no-all-versions", name)); err != nil {
		return SourcePackage{}, aptError("find package "+name, err)
	}
	version := controlField(out.String(), "Version")
	if !sourceVersion().MatchString(version) {
		return SourcePackage{}, aptError("find package "+name, fmt.Errorf("version %q", version))
	}
	return SourcePackage{packageRef{name, version}}, nil
}

// newestSource picks the highest version of the package names, one a line.
func newestSource(names string) string {
	var found []string
	for name := range strings.FieldsSeq(names) {
		if IsSourcePackage(name) {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		return ""
	}
	return slices.MaxFunc(found, compareVersions)
}

// controlField returns the first value of a field of deb-control(5).
func controlField(description, field string) string {
	for line := range strings.Lines(description) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// keepSources bounds the bytes of cached source packages: two or three.
const keepSources = 450 << 20

// Download returns the path of the package's file, from the cache when it is
// there. apt-get checks it against the signed package lists; nothing is
// installed. Errors are *workload.Error.
func (p SourcePackage) Download(ctx context.Context, progress Progress) (string, error) {
	path, err := hostdir.Cache("sources", p.ref.Name+"_"+strings.ReplaceAll(p.ref.Version, ":", "%3a")+".deb")
	if err != nil {
		return "", &workload.Error{Op: "download " + p.String(), Err: err}
	}
	err = hostdir.MakeBounded(ctx, path, keepSources, func(out *os.File) error {
		return withStaging(ctx, func(staging string) error {
			deb, err := packageLists{}.download(ctx, p.ref, staging, func(f float64) { progress.Report("download", f/100) })
			if err != nil {
				return err
			}
			in, err := os.Open(deb)
			if err != nil {
				return err
			}
			defer func() { _ = in.Close() }()
			_, err = io.Copy(out, in)
			return err
		})
	})
	var werr *workload.Error
	switch {
	case err == nil:
		return path, nil
	case ctx.Err() != nil:
		return "", &workload.Error{Op: "download " + p.String(), Err: ctx.Err()}
	case errors.As(err, &werr):
		return "", err
	}
	return "", &workload.Error{Op: "download " + p.String(), Err: err}
}

// UnpackSource takes the one tarball in the source package deb out of it, into
// the directory dir, and returns its path.
func UnpackSource(ctx context.Context, deb, dir string) (string, error) {
	if err := runTool(tool(ctx, nil, "dpkg-deb", "--extract", deb, dir)); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(dir, "usr", "src", "linux-source-*.tar*"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s holds %d source tarballs, want one", filepath.Base(deb), len(found))
	}
	return found[0], nil
}
