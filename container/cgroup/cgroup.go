package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// Set is the groups of one container. Close removes them.
type Set struct {
	groups []group
	remove func(dir string) error

	pids    int64
	pidsMax *os.File
}

type group struct {
	Hierarchy
	dir string
	// handle is what a process enters by: the directory on v2, "tasks" on v1.
	handle *os.File
}

// Options say what New makes.
type Options struct {
	// Name of the directories, unique on the host.
	Name      string
	Resources workload.Resources
	// Note is called with each directory before it is made.
	Note func(dir string) error
	// Remove kills what is in a directory, if anything, and removes it.
	Remove func(dir string) error
}

// MissingError says that a limit was asked for that cannot be set here.
type MissingError struct {
	Controller string
	Err        error
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("no %s limit is possible: %v", e.Controller, e.Err)
}

func (e *MissingError) Unwrap() error { return e.Err }

// New makes the groups that the limits need, and one with the memory controller
// in any case where that is possible, for its peak. All limits are in force
// when it returns but that of processes: see PidsLimit.
func New(o Options) (*Set, error) {
	s := &Set{pids: o.Resources.Pids, remove: o.Remove}
	layout, err := Find()
	list, lerr := writesFor(layout, o.Resources)
	if lerr != nil {
		return nil, lerr
	}
	wanted := controllersFor(list, o.Resources)
	if err != nil {
		if len(wanted) > 0 {
			return nil, &MissingError{wanted[0], err}
		}
		return s, nil
	}
	if err := s.make(layout, o, wanted); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if !slices.Contains(wanted, Memory) && !s.has(Memory) {
		_ = s.add(layout, o, wanted, Memory) // only to measure
	}
	if err := s.limit(list, o.Resources); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func controllersFor(list []Write, r workload.Resources) []string {
	var out []string
	for _, w := range list {
		if !slices.Contains(out, w.Controller) {
			out = append(out, w.Controller)
		}
	}
	if r.Pids > 0 {
		out = append(out, Pids)
	}
	return out
}

func (s *Set) make(layout Layout, o Options, wanted []string) error {
	for _, c := range wanted {
		if err := s.add(layout, o, wanted, c); err != nil {
			return &MissingError{c, err}
		}
	}
	return nil
}

func (s *Set) has(controller string) bool { _, ok := s.find(controller); return ok }

func (s *Set) find(controller string) (group, bool) {
	for _, g := range s.groups {
		list := strings.Split(g.Name, ",")
		if g.V2() {
			b, _ := os.ReadFile(filepath.Join(g.dir, "cgroup.controllers")) // gone: none
			list = strings.Fields(string(b))
		}
		if slices.Contains(list, controller) {
			return g, true
		}
	}
	return group{}, false
}

// add makes the group that gives controller, unless one made before does.
// It is made with those that are wanted besides, where it can give them.
func (s *Set) add(layout Layout, o Options, wanted []string, controller string) error {
	if s.has(controller) {
		return nil
	}
	h, ok := layout.By[controller]
	if !ok {
		return fmt.Errorf("no mounted cgroup hierarchy has the %s controller", controller)
	}
	parent, handle := h.Own, "tasks"
	if h.V2() {
		// One v2 group serves every controller: it must be made with all.
		need := []string{controller}
		for _, c := range append(slices.Clone(wanted), Memory) {
			if layout.By[c].V2() && layout.By[c].Mount != "" && c != controller {
				need = append(need, c)
			}
		}
		var err error
		if parent, err = enable(h, need, controller); err != nil {
			return err
		}
		handle = "."
	}
	dir := filepath.Join(parent, o.Name)
	if err := o.Note(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if !h.V2() && slices.Contains(strings.Split(h.Name, ","), cpuset) {
		if err := InheritCpuset(dir); err != nil {
			return errors.Join(err, o.Remove(dir))
		}
	}
	flags := os.O_WRONLY
	if h.V2() {
		flags = unix.O_RDONLY | unix.O_DIRECTORY
	}
	f, err := os.OpenFile(filepath.Join(dir, handle), flags, 0)
	if err != nil {
		return errors.Join(err, o.Remove(dir))
	}
	s.groups = append(s.groups, group{Hierarchy: h, dir: dir, handle: f})
	return nil
}

// enable finds the nearest group that this process may make a child in with
// controllers, and has it hand them out. must is the one that cannot be missed.
func enable(h Hierarchy, controllers []string, must string) (string, error) {
	var errs error
	for dir := h.Own; ; dir = filepath.Dir(dir) {
		err := enableIn(dir, controllers, must)
		if err == nil {
			return dir, nil
		}
		if errs == nil || !errors.Is(err, unix.EBUSY) {
			errs = err
		}
		if dir == h.Mount || !strings.HasPrefix(dir, h.Mount) {
			return "", errs
		}
	}
}

func enableIn(dir string, controllers []string, must string) error {
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	// Leaving the caller's group takes the right to move processes here.
	if err := unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, "cgroup.procs"), err)
	}
	file := filepath.Join(dir, "cgroup.subtree_control")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for _, c := range controllers {
		if slices.Contains(strings.Fields(string(b)), c) {
			continue
		}
		err := os.WriteFile(file, []byte("+"+c), 0)
		if err != nil && c == must {
			return fmt.Errorf("enable %s in %s: %w", c, dir, err)
		}
	}
	return nil
}

// limit writes the limits.
func (s *Set) limit(list []Write, r workload.Resources) error {
	dir := func(controller string) string {
		g, _ := s.find(controller)
		return g.dir
	}
	for _, c := range controllersFor(list, workload.Resources{}) {
		of := slices.DeleteFunc(slices.Clone(list), func(w Write) bool { return w.Controller != c })
		if err := PutAll(of, dir); err != nil {
			return &MissingError{c, err}
		}
	}
	if r.Pids > 0 {
		f, err := os.OpenFile(filepath.Join(dir(Pids), "pids.max"), os.O_WRONLY, 0)
		if err != nil {
			return &MissingError{Pids, err}
		}
		s.pidsMax = f
	}
	return nil
}

// PidsLimit returns an open file and what to write to it to put the limit of
// processes in force; nil when there is none. It is for the process that becomes
// the workload, right before its execve: a Go program has threads, which count,
// and dies when it cannot start another.
func (s *Set) PidsLimit() (*os.File, string) {
	if s.pidsMax == nil {
		return nil, ""
	}
	return s.pidsMax, strconv.FormatInt(s.pids, 10)
}

// Unified returns the v2 directory to clone into, or nil.
func (s *Set) Unified() *os.File {
	for _, g := range s.groups {
		if g.V2() {
			return g.handle
		}
	}
	return nil
}

// Tasks returns the v1 files that a thread enters by, writing "0".
func (s *Set) Tasks() []*os.File {
	var out []*os.File
	for _, g := range s.groups {
		if !g.V2() {
			out = append(out, g.handle)
		}
	}
	return out
}

// Names returns the v1 hierarchies of Tasks, in the same order.
func (s *Set) Names() []string {
	var out []string
	for _, g := range s.groups {
		if !g.V2() {
			out = append(out, g.Name)
		}
	}
	return out
}

// Used is what the container used.
type Used struct {
	// PeakMemory in bytes; 0 when not known (v2 before Linux 5.19).
	PeakMemory int64
	// OOMKills counts processes killed for want of memory in the container.
	OOMKills int64
}

// Used reads what the container used; a figure that cannot be read is 0.
func (s *Set) Used() Used {
	g, ok := s.find(Memory)
	if !ok {
		return Used{}
	}
	peak, events := "memory.max_usage_in_bytes", "memory.oom_control"
	if g.V2() {
		peak, events = "memory.peak", "memory.events"
	}
	var u Used
	if b, err := os.ReadFile(filepath.Join(g.dir, peak)); err == nil {
		u.PeakMemory, _ = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	}
	if b, err := os.ReadFile(filepath.Join(g.dir, events)); err == nil {
		u.OOMKills = keyed(string(b), "oom_kill")
	}
	return u
}

// keyed returns the value of key in a flat keyed file (cgroup-v2.rst).
func keyed(text, key string) int64 {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}

// Close removes the groups, killing what is in them. It is idempotent.
func (s *Set) Close() error {
	var errs []error
	if s.pidsMax != nil {
		_ = s.pidsMax.Close()
		s.pidsMax = nil
	}
	for _, g := range slices.Backward(s.groups) {
		_ = g.handle.Close()
		errs = append(errs, s.remove(g.dir))
	}
	s.groups = nil
	return errors.Join(errs...)
}
