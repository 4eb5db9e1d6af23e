package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
)

// stage is what was done before the machine was saved. All methods of a nil one,
// in a machine that has booted, do their work when they are called.
type stage struct {
	device  string   // of the root file system
	upper   *os.Root // holds what is written
	late    *os.File // the initramfs's modules: it is the root no more
	modules []string // the late ones that are loaded
	balloon func()
}

// lateModules are loaded before a snapshot: then they cost a clone nothing. The
// balloon's waits for the workload in every machine.
var lateModules = []string{"virtiofs", "virtio_net"}

// untilRestored prepares the machine and asks the host to save it. It returns in its
// clones: nobody goes on with this one.
//
// Nothing before the mark may come of random numbers that a workload could see: a
// clone gets its own only later. The boot id is one of those, and the kernel makes it
// when it is first read: do not.
func untilRestored(device string) (*stage, error) {
	s, err := prepare(device)
	if err != nil {
		return nil, fmt.Errorf("prepare the machine for its snapshot: %w", err)
	}
	mark(agentproto.MarkSnapshot)
	mark(agentproto.MarkResumed)
	return s, nil
}

// prepare does everything that does not depend on a run.
func prepare(device string) (*stage, error) {
	s := &stage{device: device}
	var err error
	if s.late, err = os.Open(modulesDir); err != nil {
		return nil, err
	}
	for _, name := range lateModules {
		switch err := loadLate(modulesDir, name); {
		case errors.Is(err, errNoModule): // said when a workload wants it
		case err != nil:
			return nil, err
		default:
			s.modules = append(s.modules, name)
		}
	}
	if s.balloon, err = balloonLater(modulesDir); err != nil {
		return nil, err
	}
	if err := loopbackUp(); err != nil {
		return nil, err
	}
	if s.upper, err = enterRoot(device); err != nil {
		return nil, fmt.Errorf("set up the root file system: %w", err)
	}
	return s, rehearse()
}

// rehearse reads and runs once what comes between a restore and a workload, so
// that the clones have it in memory, and leaves no garbage.
func rehearse() error {
	var b bytes.Buffer
	start := &agentproto.Start{Clone: &agentproto.Clone{Entropy: make([]byte, agentproto.MinEntropy), MachineID: strings.Repeat("0", 32)}, Spec: workload.Spec{Argv: []string{"x"}}}
	err := agentproto.Write(&b, &agentproto.Message{Type: agentproto.Run, Start: start})
	if err == nil {
		_, err = agentproto.ReadFromHost(&b)
	}
	if err != nil {
		return err
	}
	// There is no such program: the fork goes as far as its execve.
	_, _ = syscall.ForkExec("/proc/self/none", []string{"none"}, &syscall.ProcAttr{})
	runtime.GC()
	return nil
}

// load loads a module that this workload needs.
func (s *stage) load(name string) error {
	switch {
	case s == nil:
		return loadLate(modulesDir, name)
	case slices.Contains(s.modules, name):
		return nil
	}
	return loadLate(fmt.Sprintf("/proc/self/fd/%d", s.late.Fd()), name)
}

// balloonLater returns what loads the balloon's driver some time after the
// workload's start, if there is a balloon.
func (s *stage) balloonLater(has bool) (start func(), err error) {
	switch {
	case !has:
		return func() {}, nil
	case s == nil:
		return balloonLater(modulesDir)
	}
	return s.balloon, nil
}

// enterRoot makes the file system on device the root.
func (s *stage) enterRoot(device string) (*os.Root, error) {
	switch {
	case s == nil:
		return enterRoot(device)
	case s.device != device:
		return nil, fmt.Errorf("the machine was saved with %q as its root, not %q", s.device, device)
	}
	return s.upper, nil
}

// becomeClone gives a restored machine what it must not share with others of its
// snapshot, its random numbers first, and what it alone has.
func becomeClone(start *agentproto.Start, saved *stage) error {
	switch {
	case saved == nil && start.Clone == nil:
		return nil
	case saved == nil || start.Clone == nil:
		return errors.New("host and guest disagree on whether the machine was restored")
	}
	if err := reseed("/dev/urandom", start.Clone.Entropy); err != nil {
		return fmt.Errorf("renew the random numbers: %w", err)
	}
	if err := renewMachineID("/etc/machine-id", start.Clone.MachineID); err != nil {
		return fmt.Errorf("renew the machine id: %w", err)
	}
	return devicesUp(start)
}

// reseed makes the kernel's random numbers from entropy and what it had: random(4).
// The kernel counts the entropy, so that this works before its own was enough.
func reseed(device string, entropy []byte) error {
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(entropy); err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.RNDADDTOENTCNT, 8*len(entropy)); err != nil {
		return fmt.Errorf("count the entropy: %w", err)
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.RNDRESEEDCRNG, 0); err != nil {
		return fmt.Errorf("reseed: %w", err)
	}
	return nil
}

// renewMachineID replaces an image's machine id. An image without one gets none,
// and a link is not followed: as with a machine that has booted.
func renewMachineID(path, id string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return nil
	}
	return os.WriteFile(path, []byte(id+"\n"), info.Mode().Perm())
}
