package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/plainjson"
	"github.com/duplex-run/duplex/oci/cgroups"
)

// The files of a container's state directory.
const (
	stateFile = "state.json"
	specFile  = "config.json" // the bundle's, as it was at create
	lockFile  = "lock"
	startSock = "start.sock" // there until start
)

// record is what is kept of a container between commands.
type record struct {
	ID      string    `json:"id"`
	Bundle  string    `json:"bundle"`
	Created time.Time `json:"created"`
	// Ready is false until create has done all it does.
	Ready bool `json:"ready"`
	// Pid of the container's first process and its start time in clock ticks
	// since boot, which tells it from a later process of that number.
	Pid       int    `json:"pid,omitempty"`
	StartTime uint64 `json:"start_time,omitempty"`
	// Rootfs is where the bundle's root.path leads.
	Rootfs  string       `json:"rootfs"`
	Cgroups *cgroups.Set `json:"cgroups,omitempty"`
	// VM is set of a container that is a microVM: then Pid is its supervisor's.
	VM *Machine `json:"vm,omitempty"`
	// Unmount is a directory of the host that the container's file system is
	// mounted on, where it has no mount namespace of its own.
	Unmount string `json:"unmount,omitempty"`
}

// Container is a container on this host. Methods that change it hold its lock.
type Container struct {
	record
	// Spec is the bundle's configuration as it was at create. It is a file of its
	// own, because it is long and does not change.
	Spec *specs.Spec
	dir  string
	lock *os.File // nil when only read
	text []byte   // of the record, as it was read or written last
}

// ErrNotExist says that there is no container of that id.
var ErrNotExist = errors.New("container does not exist")

// ErrExist says that an id is taken.
var ErrExist = errors.New("container with given ID already exists")

// DefaultRoot returns the directory that holds the state directories when the
// user names none: /run/duplex-oci for root, else below $XDG_RUNTIME_DIR.
func DefaultRoot() string {
	if os.Geteuid() == 0 {
		return "/run/duplex-oci" // without a look at the environment, which Go would index
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "duplex-oci")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("duplex-oci-%d", os.Geteuid()))
}

// checkID refuses what is no plain file name, runc's rule.
func checkID(id string) error {
	odd := strings.IndexFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_+.-", r)
	})
	if id == "" || id == "." || id == ".." || odd >= 0 || len(id) > 255 {
		return fmt.Errorf("invalid container ID %q: want 1 to 255 characters of [a-zA-Z0-9_+.-]", id)
	}
	return nil
}

// Open returns the container id below root, and with lock waits until no other
// command works on it. The caller closes it.
func Open(root, id string, lock bool) (*Container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	return (&Container{dir: filepath.Join(root, id), record: record{ID: id}}).open(lock)
}

// open reads the container again: what others have changed, by now.
func (c *Container) open(lock bool) (*Container, error) {
	id := c.ID
	if lock {
		f, err := os.OpenFile(filepath.Join(c.dir, lockFile), os.O_RDWR, 0)
		if err != nil {
			return nil, notExist(id, err)
		}
		if err := flock(f, unix.LOCK_EX); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		c.lock = f
	}
	if err := c.read(); err != nil {
		c.Close()
		return nil, notExist(id, err)
	}
	return c, nil
}

func notExist(id string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("container %q: %w", id, ErrNotExist)
	}
	return fmt.Errorf("container %q: %w", id, err)
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Close gives the lock back. It is idempotent.
func (c *Container) Close() {
	if c.lock != nil {
		_ = c.lock.Close()
		c.lock = nil
	}
}

func (c *Container) path(name string) string { return filepath.Join(c.dir, name) }

func (c *Container) read() error {
	data, err := os.ReadFile(c.path(stateFile))
	if err != nil {
		return err
	}
	if c.Spec != nil && c.text != nil && bytes.Equal(data, c.text) {
		return nil // nothing has changed since
	}
	if err := json.Unmarshal(data, &c.record); err != nil {
		return fmt.Errorf("parse %s: %w", c.path(stateFile), err)
	}
	c.text = data
	if c.Spec != nil {
		return nil
	}
	if data, err = os.ReadFile(c.path(specFile)); err != nil {
		return err
	}
	spec, err := decode(data)
	if err != nil {
		return fmt.Errorf("parse %s: %w", c.path(specFile), err)
	}
	if spec.Linux == nil || spec.Root == nil {
		return fmt.Errorf("parse %s: no configuration", c.path(specFile))
	}
	spec.Root.Path = c.Rootfs
	c.Spec = spec
	return nil
}

// save writes the record so that a reader sees the old one or the new one.
func (c *Container) save() error {
	data, err := plainjson.Marshal(&c.record)
	if err != nil {
		return err
	}
	tmp := c.path(stateFile + ".new")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	c.text = data
	return os.Rename(tmp, c.path(stateFile))
}

// Status says where the container is in its life (runtime.md, "State"), with
// "paused" as runc adds it.
func (c *Container) Status() specs.ContainerState {
	alive := c.alive()
	switch {
	case !c.Ready && (alive || c.Pid == 0):
		return specs.StateCreating
	case !alive:
		return specs.StateStopped
	case c.VM == nil && c.Cgroups.Frozen() || c.VM != nil && c.VM.Paused:
		return statePaused
	}
	if _, err := os.Lstat(c.path(startSock)); err == nil {
		return specs.StateCreated
	}
	return specs.StateRunning
}

const statePaused = specs.ContainerState("paused")

// alive reports whether the container's first process is there.
func (c *Container) alive() bool {
	if c.Pid == 0 {
		return false
	}
	state, start, err := procStat(c.Pid)
	return err == nil && start == c.StartTime && state != 'Z' && state != 'X'
}

// procStat reads the state and the start time of a process (proc_pid_stat(5)).
func procStat(pid int) (state byte, start uint64, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	text := string(b)
	i := strings.LastIndexByte(text, ')') // the name before may hold anything
	f := strings.Fields(text[i+1:])
	if i < 0 || len(f) < 20 {
		return 0, 0, fmt.Errorf("parse /proc/%d/stat", pid)
	}
	start, err = strconv.ParseUint(f[19], 10, 64) // field 22
	return f[0][0], start, err
}

// State is the answer to `state`: the specification's, and what runc adds.
type State struct {
	specs.State
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
	Owner   string    `json:"owner"`
}

// State reports on the container.
func (c *Container) State() State {
	s := State{State: c.specState(c.Status()), Rootfs: c.Spec.Root.Path, Created: c.Created}
	if s.Status == specs.StateStopped {
		s.Pid = 0
	}
	return s
}

// specState is what hooks read, too.
func (c *Container) specState(status specs.ContainerState) specs.State {
	return specs.State{Version: specs.Version, ID: c.ID, Status: status, Pid: c.Pid,
		Bundle: c.Bundle, Annotations: c.Spec.Annotations}
}

func (c *Container) stateJSON(status specs.ContainerState) []byte {
	data, err := plainjson.Marshal(c.specState(status))
	if err != nil {
		return []byte("{}") // cannot be: strings and numbers only
	}
	return data
}

// List returns the containers below root in the order of their ids; what is
// there without a state, because it is being made, is left out.
func List(root string) ([]*Container, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []*Container
	for _, e := range entries {
		if c, err := Open(root, e.Name(), false); err == nil {
			out = append(out, c)
		}
	}
	return out, nil
}

// writePidFile writes the file so that a reader finds it whole or not at all.
func writePidFile(path string, pid int) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("write the pid file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(fmt.Errorf("write the pid file: %w", err), os.Remove(tmp))
	}
	return nil
}

// unmount takes the mounts of a container without a mount namespace off the
// host.
func unmount(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // it was not mounted yet
	}
	return err
}
