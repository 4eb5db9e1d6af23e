package cgroups

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

	"github.com/duplex-run/duplex/container/cgroup"
	"github.com/duplex-run/duplex/internal/hostdir"
)

// Dir is the container's group in one hierarchy.
type Dir struct {
	Name string `json:"name"` // v1 controllers as mounted, "cpu,cpuacct"; "" for v2
	Path string `json:"path"`
}

// Set is the groups of a container. The nil Set has none.
type Set struct {
	Dirs []Dir `json:"dirs"`
	// Made are the directories that did not exist before, parents first.
	Made []string `json:"made"`
}

// Plan decides where the groups are, without making them. An absolute
// cgroupsPath counts from the root of each hierarchy, another one from the
// caller's own group; an empty one is the id below that.
func Plan(cgroupsPath, id string) (*Set, error) {
	layout, err := cgroup.Find()
	if errors.Is(err, os.ErrNotExist) {
		return &Set{}, nil
	}
	if err != nil {
		return nil, err
	}
	s := &Set{}
	for _, h := range hierarchies(layout) {
		path := filepath.Join(h.Mount, cgroupsPath)
		if !filepath.IsAbs(cgroupsPath) {
			base := h.Own
			if h.V2() && base != h.Mount {
				base = filepath.Dir(base) // a v2 group with processes cannot hand out controllers
			}
			path = filepath.Join(base, filepath.Join("/", cgroupsPath))
			if cgroupsPath == "" {
				path = filepath.Join(base, id)
			}
		}
		if path == h.Mount {
			return nil, fmt.Errorf("cgroupsPath %q is the root of the hierarchy", cgroupsPath)
		}
		s.Dirs = append(s.Dirs, Dir{Name: h.Name, Path: path})
	}
	return s, nil
}

// hierarchies lists the v1 hierarchies, or the v2 one on a host without any, in
// the order of their names.
func hierarchies(l cgroup.Layout) []cgroup.Hierarchy {
	var out []cgroup.Hierarchy
	for _, h := range l.By {
		if !h.V2() && !slices.ContainsFunc(out, func(o cgroup.Hierarchy) bool { return o.Mount == h.Mount }) {
			out = append(out, h)
		}
	}
	if len(out) == 0 && l.Unified != nil {
		return []cgroup.Hierarchy{*l.Unified}
	}
	slices.SortFunc(out, func(a, b cgroup.Hierarchy) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// V2 reports whether the group is one of cgroup v2.
func (s *Set) V2() bool { return s != nil && len(s.Dirs) == 1 && s.Dirs[0].Name == "" }

// Path returns the group with a v1 controller, or the v2 group; "" for none.
func (s *Set) Path(controller string) string {
	if s == nil {
		return ""
	}
	for _, d := range s.Dirs {
		if d.Name == "" || slices.Contains(strings.Split(d.Name, ","), controller) {
			return d.Path
		}
	}
	return ""
}

// Make makes the groups. Without the right to, it goes without groups, unless
// res asks for a limit.
func (s *Set) Make(res *specs.LinuxResources) error {
	for i, d := range s.Dirs {
		err := s.makeDir(d)
		if err == nil {
			continue
		}
		denied := errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
		if denied && !limits(res) && i == 0 {
			s.Dirs = nil
			return nil
		}
		return fmt.Errorf("make the cgroup: %w", err)
	}
	return nil
}

// limits reports whether res asks for more than rules for devices.
func limits(res *specs.LinuxResources) bool {
	return res != nil && (res.Memory != nil || res.CPU != nil || res.Pids != nil || res.BlockIO != nil ||
		len(res.HugepageLimits) > 0 || res.Network != nil || len(res.Unified) > 0)
}

// makeDir makes d and what is missing above it. One that is there already must
// be empty: its processes would get the container's limits, and its fate.
func (s *Set) makeDir(d Dir) error {
	if pids, err := procs(d.Path); err == nil && len(pids) > 0 {
		return fmt.Errorf("%s has %d processes already: %w", d.Path, len(pids), unix.EBUSY)
	}
	var missing []string
	for p := d.Path; ; p = filepath.Dir(p) {
		if _, err := os.Lstat(p); err == nil || p == "/" {
			break
		}
		missing = append(missing, p)
	}
	slices.Reverse(missing)
	for _, p := range missing {
		if d.Name == "" {
			enableAll(filepath.Dir(p))
		}
		if err := os.Mkdir(p, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		s.Made = append(s.Made, p)
		if slices.Contains(strings.Split(d.Name, ","), "cpuset") {
			if err := cgroup.InheritCpuset(p); err != nil {
				return err
			}
		}
	}
	if d.Name == "" && len(missing) == 0 {
		enableAll(filepath.Dir(d.Path))
	}
	return nil
}

// enableAll hands out every controller of a v2 group that it can. One that is
// missed shows when a limit needs it.
func enableAll(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, c := range strings.Fields(string(b)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// Sub is the groups of a process in groups below the container's, which exist:
// each of list is [CONTROLLER[,CONTROLLER]:]PATH, runc's form; without a controller
// it is for all that are not named.
func (s *Set) Sub(list []string) (*Set, error) {
	if s == nil || len(s.Dirs) == 0 {
		return nil, errors.New("the container has no cgroup")
	}
	out := &Set{Dirs: slices.Clone(s.Dirs)}
	for _, v := range list {
		names, path, named := strings.Cut(v, ":")
		if !named {
			names, path = "", v
		}
		found := false
		for i, d := range s.Dirs {
			if named && !slices.Contains(strings.Split(d.Name, ","), strings.Split(names, ",")[0]) {
				continue
			}
			if !named && out.Dirs[i].Path != d.Path {
				continue
			}
			found = true
			out.Dirs[i].Path = filepath.Join(d.Path, filepath.Join("/", path)) // not above
			if info, err := os.Stat(out.Dirs[i].Path); err != nil || !info.IsDir() {
				return nil, fmt.Errorf("%s: the container has no such cgroup", v)
			}
		}
		if !found {
			return nil, fmt.Errorf("%s: the container has no cgroup of that controller", v)
		}
	}
	return out, nil
}

// Tasks opens the v1 files that a thread enters by, writing "0".
func (s *Set) Tasks() ([]*os.File, error) {
	var out []*os.File
	for _, d := range s.Dirs {
		if d.Name == "" {
			continue
		}
		f, err := os.OpenFile(filepath.Join(d.Path, "tasks"), os.O_WRONLY, 0)
		if err != nil {
			for _, o := range out {
				_ = o.Close()
			}
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// Unified opens the v2 directory to clone into; nil without one.
func (s *Set) Unified() (*os.File, error) {
	if !s.V2() {
		return nil, nil
	}
	return os.OpenFile(s.Dirs[0].Path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// Procs lists the processes of the container, those of groups below included.
func (s *Set) Procs() ([]int, error) {
	dir := s.Path("pids")
	if dir == "" && s != nil && len(s.Dirs) > 0 {
		dir = s.Dirs[0].Path
	}
	if dir == "" {
		return nil, nil
	}
	var out []int
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		pids, err := procs(p)
		out = append(out, pids...)
		return err
	})
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return out, err
}

func procs(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var out []int
	for _, f := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			out = append(out, pid)
		}
	}
	return out, nil
}

// Signal sends a signal to every process of the container.
func (s *Set) Signal(sig unix.Signal) error {
	pids, err := s.Procs()
	for _, pid := range pids {
		if kerr := unix.Kill(pid, sig); kerr != nil && !errors.Is(kerr, unix.ESRCH) {
			err = errors.Join(err, kerr)
		}
	}
	return err
}

// Remove kills what is left in the groups and removes them, and what was made
// above them as far as nobody else uses it. It is idempotent.
func (s *Set) Remove() error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, d := range s.Dirs {
		errs = append(errs, hostdir.RemoveCgroup(d.Path))
	}
	for _, p := range slices.Backward(s.Made) {
		_ = unix.Rmdir(p) // another container may be in it
	}
	return errors.Join(errs...)
}

// ErrNoFreezer says that the container cannot be paused.
var ErrNoFreezer = errors.New("no freezer cgroup")

// Freeze stops every process of the container, or lets them go on, and returns
// when that has happened.
func (s *Set) Freeze(on bool) error {
	dir := s.Path("freezer")
	if dir == "" {
		return ErrNoFreezer
	}
	if s.V2() {
		return freezeV2(dir, on)
	}
	want := "THAWED"
	if on {
		want = "FROZEN"
	}
	file := filepath.Join(dir, "freezer.state")
	for range 1000 {
		// Written again: a process that forks meanwhile can keep v1 FREEZING.
		if err := os.WriteFile(file, []byte(want), 0); err != nil {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(b)) == want {
			return nil
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil) // shorter is fine
	}
	if on {
		_ = os.WriteFile(file, []byte("THAWED"), 0)
	}
	return errors.New("the processes do not freeze")
}

// freezeV2 waits for cgroup.events to say so; the kernel notifies of changes
// (cgroup-v2.rst, "cgroup.events") by POLLPRI.
func freezeV2(dir string, on bool) error {
	value, want := "0", "frozen 0"
	if on {
		value, want = "1", "frozen 1"
	}
	events, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return err
	}
	defer func() { _ = events.Close() }()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte(value), 0); err != nil {
		return err
	}
	buf := make([]byte, 256)
	for range 100 {
		n, err := events.ReadAt(buf, 0)
		if n == 0 && err != nil {
			return err
		}
		if strings.Contains(string(buf[:n]), want) {
			return nil
		}
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return errors.New("the processes do not freeze")
}

// Frozen reports whether the container is paused.
func (s *Set) Frozen() bool {
	dir := s.Path("freezer")
	if dir == "" {
		return false
	}
	file, want := "freezer.state", "FROZEN"
	if s.V2() {
		file, want = "cgroup.freeze", "1"
	}
	b, err := os.ReadFile(filepath.Join(dir, file))
	return err == nil && strings.TrimSpace(string(b)) == want
}
