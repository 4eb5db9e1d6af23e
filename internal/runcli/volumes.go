package runcli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/internal/workload"
)

// parseVolume parses docker's HOST:GUEST[:ro], of -v, without looking at files.
func parseVolume(arg string) (workload.Volume, error) {
	host, rest, ok := strings.Cut(arg, ":")
	guest, mode, _ := strings.Cut(rest, ":")
	v := workload.Volume{Host: host, Guest: path.Clean(guest), ReadOnly: mode == "ro"}
	switch {
	case !ok || host == "" || guest == "":
		return v, errors.New("want HOST:GUEST or HOST:GUEST:ro")
	case mode != "" && mode != "ro" && mode != "rw":
		return v, fmt.Errorf("mode %q is neither ro nor rw", mode)
	case strings.ContainsRune(arg, 0):
		return v, errors.New("holds a NUL byte")
	case !path.IsAbs(guest):
		return v, fmt.Errorf("%s: not an absolute path", guest)
	case v.Guest == "/":
		return v, errors.New("the root itself cannot be a volume")
	}
	for _, own := range []string{"/proc", "/sys", "/dev"} {
		if v.Guest == own || strings.HasPrefix(v.Guest, own+"/") {
			return v, fmt.Errorf("%s is the kernel's: no volume can be there", own)
		}
	}
	return v, nil
}

// volumeList parses the -v flags: the order is that of mounting, a path's
// parents before it.
func (o *Options) volumeList() ([]workload.Volume, error) {
	var list []workload.Volume
	for _, arg := range o.Volumes {
		v, err := parseVolume(arg)
		if err != nil {
			return nil, fmt.Errorf("--volume=%s: %w", arg, err)
		}
		if slices.ContainsFunc(list, func(w workload.Volume) bool { return w.Guest == v.Guest }) {
			return nil, fmt.Errorf("--volume=%s: %s is a volume already", arg, v.Guest)
		}
		if v.Host, err = filepath.Abs(v.Host); err != nil {
			return nil, fmt.Errorf("--volume=%s: %w", arg, err)
		}
		list = append(list, v)
	}
	slices.SortStableFunc(list, func(a, b workload.Volume) int {
		return cmp.Compare(strings.Count(a.Guest, "/"), strings.Count(b.Guest, "/"))
	})
	return list, nil
}

// HostVolumes is volumeList of what the host has. What is missing is an error:
// docker would make a directory, which hides a mistyped name.
func (o *Options) HostVolumes() ([]workload.Volume, error) {
	list, err := o.volumeList()
	if err != nil {
		return nil, err
	}
	for _, v := range list {
		info, err := os.Stat(v.Host)
		if errors.Is(err, os.ErrNotExist) {
			return nil, &workload.Error{Op: "volume " + v.Host, Err: os.ErrNotExist,
				Remedy: "Make it first, as with 'mkdir -p " + v.Host + "'."}
		}
		if err != nil {
			return nil, &workload.Error{Op: "volume " + v.Host, Err: err}
		}
		if !info.IsDir() && !info.Mode().IsRegular() {
			return nil, &workload.Error{Op: "volume " + v.Host, Err: errors.New("is neither a directory nor a regular file")}
		}
	}
	return list, nil
}
