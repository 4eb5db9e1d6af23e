package jail

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/confine"
)

// Config is a jail to enter.
type Config struct {
	// Report is the write end of the pipe that ReadDenial reads. It stays open.
	Report *os.File
	// Isolated says that the process was started with Attributes.
	Isolated bool
	// Shares are the directories of the host whose files the monitor serves.
	Shares []confine.Beneath
	// Capabilities to keep, by number, in the monitor's user namespace: what
	// serving Shares of other users' files takes.
	Capabilities uint64
	// Saves: the monitor saves the machine, and so reads all its state from KVM.
	Saves bool
	// MaxFiles bounds the descriptors the process may have open; 0 leaves it.
	MaxFiles uint64
}

// Layers says what confines the process.
type Layers struct {
	Namespaces bool // user, mount, pid, net, ipc, uts, cgroup
	EmptyRoot  bool // no file system but an empty one
	Landlock   int  // version of its interface, 0 without
	Filter     bool
}

// Missing says what is not there and what that means, one line each.
func (l Layers) Missing() []string {
	var out []string
	if !l.Namespaces {
		out = append(out, "no namespaces of its own: this host gives user namespaces to nobody but root; the monitor sees the host's files and network, and only its filter keeps it from them")
	}
	if l.Namespaces && !l.EmptyRoot {
		out = append(out, "no empty root: this host lets nobody but root mount, in namespaces of their own either; Landlock and the filter keep the host's files from the monitor")
	}
	if l.Landlock == 0 {
		out = append(out, "no Landlock: the kernel was built or booted without it")
	}
	if !l.Filter {
		out = append(out, "no system call filter")
	}
	return out
}

// Jail is what the process is in.
type Jail struct {
	Layers Layers
	vcpu   []unix.SockFilter
}

// Attributes are those of the process to be: namespaces, and an end with its
// parent. The parent's thread must not end before the child: lock it.
func Attributes(who confine.Identity) *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	confine.Isolate(sys, who)
	return sys
}

// Enter confines this process for good. When it fails, the process may be
// confined in part and should end.
func Enter(c Config) (*Jail, error) {
	j := &Jail{}
	policy := Policy{Shares: len(c.Shares) > 0, Saves: c.Saves, SelfPID: os.Getpid()}
	monitor, err := policy.Filter(Monitor)
	if err != nil {
		return nil, err
	}
	if j.vcpu, err = policy.Filter(VCPU); err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return limit(c.MaxFiles) },
		func() error { return j.emptyRoot(c.Isolated) },
		confine.Undumpable,
		func() error { return confine.DropCapabilities(c.Capabilities) },
		confine.NoNewPrivs,
		func() error { return j.landlock(c.Shares) },
		func() error { return handleSIGSYS(c.Report) },
		func() error { return confine.SetFilter(monitor, true) },
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("enter the jail: %w", err)
		}
	}
	j.Layers.Filter = true
	return j, nil
}

// EnterVCPU confines the calling thread further, to what a vCPU's needs.
// Precondition: the goroutine is locked to its thread and stays so until both end.
func (j *Jail) EnterVCPU() error {
	if err := confine.SetFilter(j.vcpu, false); err != nil {
		return fmt.Errorf("enter the vCPU's jail: %w", err)
	}
	return nil
}

func limit(files uint64) error {
	limits := []confine.Limit{{Resource: unix.RLIMIT_CORE, Value: 0}}
	if files > 0 {
		limits = append(limits, confine.Limit{Resource: unix.RLIMIT_NOFILE, Value: files})
	}
	return confine.SetLimits(limits...)
}

func (j *Jail) emptyRoot(isolated bool) error {
	if !isolated {
		return nil
	}
	j.Layers.Namespaces = true
	err := confine.EmptyRoot()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil // a security module's doing: Layers says so
	}
	j.Layers.EmptyRoot = err == nil
	return err
}

func (j *Jail) landlock(shares []confine.Beneath) error {
	err := confine.Landlock(shares...)
	if errors.Is(err, confine.ErrNoLandlock) {
		return nil // Layers says so
	}
	j.Layers.Landlock = confine.LandlockABI()
	return err
}
