package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/container/cgroup"
	"github.com/duplex-run/duplex/internal/testutil/netns"
)

// ownGroups are the cgroups that this test process has made for itself, so that
// those of its runs, which are made below, are none of the tests beside it. Without
// the rights for them, and with cgroup v2 alone, there are none: see groups.
var ownGroups []string

// moveToOwnGroups returns how to move back.
func moveToOwnGroups() (func(), error) {
	layout, err := cgroup.Find()
	if err != nil || os.Geteuid() != 0 || cgroup.OnlyUnified() || netns.Inside() { // which sees no cgroups
		return func() {}, nil
	}
	var back []func()
	undo := func() {
		for _, f := range back {
			f()
		}
	}
	for _, h := range layout.By {
		if h.V2() {
			continue
		}
		dir := filepath.Join(h.Own, fmt.Sprintf("e2e-%d", os.Getpid()))
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, os.ErrExist) {
			continue // two controllers, one hierarchy
		}
		if err == nil && strings.Contains(h.Name, "cpuset") {
			err = cgroup.InheritCpuset(dir)
		}
		if err == nil {
			err = enter(dir)
		}
		if err != nil {
			undo()
			return nil, fmt.Errorf("a cgroup of the tests' own: %w", err)
		}
		ownGroups = append(ownGroups, dir)
		back = append(back, func() {
			if err := errors.Join(enter(h.Own), os.Remove(dir)); err != nil {
				fmt.Fprintf(os.Stderr, "leave the tests' own cgroup: %v\n", err)
			}
		})
	}
	return undo, nil
}

func enter(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o600)
}

// groups are the cgroups that runs have made.
func groups(t *testing.T) (out []string) {
	t.Helper()
	roots := ownGroups
	if len(roots) == 0 {
		roots = []string{"/sys/fs/cgroup"}
	}
	for _, root := range roots {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "duplex-") {
				out = append(out, "cgroup "+path)
			}
			return nil
		})
	}
	return out
}
