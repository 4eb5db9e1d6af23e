package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Write is one value for one file of the group with a controller.
type Write struct {
	Controller string
	File       string
	Value      string
	// Optional: a kernel without the file keeps the default, which is what the
	// value means or cannot be told from it.
	Optional bool
	// Or is another name of the file, on other kernels, where OrValue, if it is not
	// empty, means the same.
	Or, OrValue string
}

// Writes are what limits come to in files of cgroup v1 or v2, in the order to
// write them in.
func Writes(res *specs.LinuxResources, v2 bool) (list []Write, err error) {
	switch {
	case v2:
		list, err = v2Writes(res)
	case len(res.Unified) > 0:
		err = errors.New("linux.resources.unified is not supported on cgroup v1")
	default:
		list, err = v1Writes(res)
	}
	for _, w := range list { // page sizes and unified's keys are the bundle's
		if w.File != filepath.Base(w.File) || w.File == "." || w.File == ".." || strings.ContainsRune(w.File, 0) {
			return nil, fmt.Errorf("linux.resources: %q is not the name of a file", w.File)
		}
	}
	return list, err
}

// PutAll writes list, each into what dir gives for its controller; "" is none.
func PutAll(list []Write, dir func(controller string) string) error {
	for i, w := range list {
		err := w.put(dir(w.Controller))
		if err != nil && w.File == "memory.limit_in_bytes" && i+1 < len(list) {
			// The limit may not pass the one with swap at any moment: when it
			// grows, that one has to grow first.
			if list[i+1].put(dir(w.Controller)) == nil {
				err = w.put(dir(w.Controller))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w Write) put(dir string) error {
	if dir == "" {
		return fmt.Errorf("no %s cgroup is mounted here: %s cannot be set", w.Controller, w.File)
	}
	err := WriteFile(filepath.Join(dir, w.File), w.Value)
	if errors.Is(err, os.ErrNotExist) && w.Or != "" {
		if w.OrValue != "" {
			w.Value = w.OrValue
		}
		w.File = w.Or
		err = WriteFile(filepath.Join(dir, w.File), w.Value)
	}
	if errors.Is(err, os.ErrNotExist) {
		if w.Optional {
			return nil
		}
		return fmt.Errorf("this kernel's %s cgroup has no %s: %w", w.Controller, w.File, err)
	}
	if err != nil {
		return fmt.Errorf("set %s to %q: %w", w.File, w.Value, Bare(err))
	}
	return nil
}

// WriteFile writes in one call, as cgroup files want it, and makes nothing.
func WriteFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// Bare strips the path from an error.
func Bare(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func i64(n int64) string  { return strconv.FormatInt(n, 10) }
func u64(n uint64) string { return strconv.FormatUint(n, 10) }

// orMax writes no limit as "max": 0 and below, as runc has it.
func orMax(n int64) string {
	if n <= 0 {
		return "max"
	}
	return i64(n)
}

// sortedKeys returns the keys of m in order, for writes that can be foretold.
func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
