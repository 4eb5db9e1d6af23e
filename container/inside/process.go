package inside

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/confine"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/workload"
)

// processSteps turn this process into the user's, but for the execve. The order
// is the only one possible, as in restrict.
func (o *oci) processSteps() []ociStep {
	p := o.plan.Process
	if p == nil {
		return nil // start will say so
	}
	return []ociStep{
		{"open the terminal", o.terminal},
		{"make a session keyring", func() error { return joinKeyring(o.plan.Keyring) }},
		{"reset the signals", defaultSignals},
		{"find the program", o.find},
		{"set the AppArmor profile", func() error { return setAppArmor(p.AppArmor) }},
		{"set the scheduler", func() error { return setScheduler(p) }},
		{"set the memory policy", func() error { return setMemoryPolicy(p.MemoryPolicy) }},
		{"raise the resource limits", func() error { return raiseRlimits(p.Rlimits) }},
		{"set the personality", func() error { return setPersonality(p.Personality) }},
		{"set no_new_privs", func() error { return noNewPrivs(p) }},
		{"close descriptors", func() error { return closeRest(p) }},
		{"enter the Landlock domain", func() error { return enterLandlock(p.Landlock) }},
		{"install the seccomp filter", o.earlySeccomp},
		{"drop capabilities", func() error { return dropBounding(p.Bounding) }},
		{"become the user", func() error { return becomeProcessUser(p) }},
		{"set the capabilities", func() error { return setAllCaps(p) }},
		{"enter the working directory", func() error { return o.enterAsUser() }},
	}
}

// terminal opens a pseudo-terminal, see openTerminal.
func (o *oci) terminal() error {
	p := o.plan.Process
	return openTerminal(o.conn, workload.Spec{
		TTY: p.Terminal, Size: workload.WinSize{Rows: p.Rows, Cols: p.Cols}, User: workload.User{UID: p.UID},
	}, o.tree != nil && o.tree.files.Dev)
}

// find enters the working directory and finds the program, while this process
// may still look everywhere; it looks as the user.
func (o *oci) find() error {
	p := o.plan.Process
	p.Env = withHome(p)
	unix.Umask(int(p.Umask))
	user := workload.User{UID: p.UID, GID: p.GID, Groups: p.Groups}
	if p.NoGroups {
		user = workload.User{}
	}
	path, exit, err := launch.Prepare(workload.Spec{Argv: p.Argv, Env: p.Env, Cwd: p.Cwd, User: user, ID: "-"})
	if exit != nil {
		return cannotExecute(exit)
	}
	o.path = path
	return err
}

func cannotExecute(exit *workload.Exit) error {
	code := unix.EACCES
	if exit.Code == workload.StatusNotFound {
		code = unix.ENOENT
	}
	return &notExecutable{exit.Message, code}
}

// notExecutable is the error of a program that cannot be executed, with the
// reason that makes its exit status.
type notExecutable struct {
	message string
	errno   unix.Errno
}

func (e *notExecutable) Error() string { return e.message }
func (e *notExecutable) Unwrap() error { return e.errno }

// enterAsUser enters the working directory once more: its owner may be allowed
// what root of a user namespace is not, and the other way round. It may have been
// swapped for another meanwhile (CVE-2024-21626). Where the filter denies
// getcwd(2), which itself fails with ENOENT only, it stays where find has been.
func (o *oci) enterAsUser() error {
	var denied unix.Errno
	if errors.As(launch.InsideRoot(), &denied) && denied != unix.ENOENT {
		return nil
	}
	if err := unix.Chdir(o.plan.Process.Cwd); err != nil && !errors.Is(err, unix.EACCES) {
		return err
	}
	return launch.InsideRoot()
}

// closeRest makes sure that the program gets the standard streams, and those
// descriptors that are meant for it.
func closeRest(p *handshake.Process) error {
	return unix.CloseRange(uint(3+p.Preserve), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
}

// withHome adds HOME of the user's entry in the container's /etc/passwd where
// it is missing, as runc does.
func withHome(p *handshake.Process) []string {
	if slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		return p.Env
	}
	home := "/"
	if f, err := os.Open("/etc/passwd"); err == nil {
		defer func() { _ = f.Close() }()
		sc := bufio.NewScanner(f)
		uid := strconv.FormatUint(uint64(p.UID), 10)
		for sc.Scan() {
			if e := strings.Split(sc.Text(), ":"); len(e) >= 7 && e[2] == uid && strings.HasPrefix(e[5], "/") {
				home = e[5]
				break
			}
		}
	}
	return append(p.Env, "HOME="+home)
}

// joinKeyring makes a session keyring called name; see newKeyring.
func joinKeyring(name string) error {
	switch name {
	case "":
		return newKeyring()
	case handshake.NoKeyring:
		return nil
	}
	_, err := unix.KeyctlJoinSessionKeyring(name)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EDQUOT) {
		return nil
	}
	return err
}

// setAppArmor has execve change to profile.
func setAppArmor(profile string) error {
	if profile == "" {
		return nil
	}
	for _, path := range []string{"thread-self/attr/apparmor/exec", "thread-self/attr/exec"} {
		err := writeProc(path, "exec "+profile)
		if !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return errors.New("this kernel has no AppArmor")
}

// enterLandlock puts this thread into a Landlock domain, as far as the kernel has
// it.
func enterLandlock(d *confine.Workload) error {
	if d == nil {
		return nil
	}
	_, err := d.Enter()
	return err
}

func setScheduler(p *handshake.Process) error {
	if s := p.Scheduler; s != nil {
		err := unix.SchedSetAttr(0, &unix.SchedAttr{
			Size: unix.SizeofSchedAttr, Policy: s.Policy, Flags: s.Flags, Nice: s.Nice,
			Priority: s.Priority, Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
		}, 0)
		if err != nil {
			return fmt.Errorf("sched_setattr: %w", err)
		}
	}
	if p.IOPriority != 0 {
		const whoProcess = 1 // IOPRIO_WHO_PROCESS
		if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, uintptr(p.IOPriority)); errno != 0 {
			return fmt.Errorf("ioprio_set: %w", errno)
		}
	}
	if len(p.CPUs) == 0 {
		return nil
	}
	var set unix.CPUSet
	for _, n := range p.CPUs {
		set.Set(n)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("sched_setaffinity: %w", err)
	}
	return nil
}

// raiseRlimits raises hard limits, which takes a capability, and lowers none: a
// small limit of memory or of processes would end this program before it becomes
// the user's.
func raiseRlimits(limits []workload.Rlimit) error {
	for _, l := range limits {
		var now unix.Rlimit
		if err := unix.Prlimit(0, l.Resource, nil, &now); err != nil {
			return fmt.Errorf("read limit %d: %w", l.Resource, err)
		}
		if l.Hard <= now.Max {
			continue
		}
		now.Max = l.Hard
		if err := unix.Prlimit(0, l.Resource, &now, nil); err != nil {
			return fmt.Errorf("raise limit %d to %d: %w", l.Resource, l.Hard, err)
		}
	}
	return nil
}

// setRlimits sets the limits, right before execve or before a filter that may
// forbid it. By Prlimit, which keeps Go's runtime from giving the limit of open
// files its first value back at execve.
func setRlimits(limits []workload.Rlimit) error {
	if len(limits) == 0 {
		return nil
	}
	// What execve's arguments take should be there when no more can be had.
	reserve := make([]byte, 1<<20)
	clear(reserve)
	runtime.KeepAlive(reserve)
	runtime.GC()
	for _, l := range limits {
		if err := unix.Prlimit(0, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return &handshake.StepError{Step: "set the resource limits", Err: fmt.Errorf("limit %d to %d, %d: %w", l.Resource, l.Soft, l.Hard, err)}
		}
	}
	return nil
}

// setMemoryPolicy is for this thread, which becomes the program.
func setMemoryPolicy(p *handshake.MemoryPolicy) error {
	if p == nil {
		return nil
	}
	if len(p.Nodes) == 0 {
		return unix.SetMemPolicy(p.Mode, nil)
	}
	var set unix.CPUSet // a mask of numbers, of nodes too
	for _, n := range p.Nodes {
		set.Set(n)
	}
	return unix.SetMemPolicy(p.Mode, &set)
}

func setPersonality(p uint32) error {
	if p == 0 {
		return nil
	}
	if _, _, errno := unix.Syscall(unix.SYS_PERSONALITY, uintptr(p), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func noNewPrivs(p *handshake.Process) error {
	if !p.NoNewPrivs {
		return nil
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// earlySeccomp installs the filter while CAP_SYS_ADMIN is there, which it takes
// without no_new_privs; with that it waits for the last moment, so that the
// filter needs to allow less. One with a listener cannot wait: whoever could
// pass the listener on is gone then.
func (o *oci) earlySeccomp() error {
	p := o.plan.Process
	if p.NoNewPrivs && !p.Notify || len(p.Seccomp) == 0 {
		return nil
	}
	if err := setRlimits(p.Rlimits); err != nil {
		return err
	}
	p.Rlimits = nil
	return o.seccomp()
}

func (o *oci) seccomp() error {
	p := o.plan.Process
	if len(p.Seccomp) == 0 {
		return nil
	}
	listener, err := installSeccompFlags(p.Seccomp, p.SeccompFlags)
	if err != nil || !p.Notify {
		return err
	}
	err = o.conn.SendFile(handshake.Message{Kind: handshake.KindNotify}, listener)
	return errors.Join(err, unix.Close(listener))
}

// becomeProcessUser takes the ids, and keeps the permitted capabilities for
// setAllCaps.
func becomeProcessUser(p *handshake.Process) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep the capabilities: %w", err)
	}
	user := workload.User{UID: p.UID, GID: p.GID, Groups: p.Groups}
	var err error
	if p.NoGroups {
		err = launch.IDs(user)
	} else {
		err = launch.Credentials(user)
	}
	if err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0)
}

// allCaps are the arguments of capset(2) for p, of what the calling thread has.
func allCaps(p *handshake.Process) (hdr unix.CapUserHeader, data [2]unix.CapUserData, err error) {
	hdr.Version = unix.LINUX_CAPABILITY_VERSION_3
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return hdr, data, fmt.Errorf("capget: %w", err)
	}
	for i := range data {
		word := func(set uint64) uint32 { return uint32(set >> (32 * i)) }
		data[i].Permitted &= word(p.Permitted)
		data[i].Effective = data[i].Permitted & word(p.Effective)
		data[i].Inheritable = word(p.Inheritable)
	}
	return hdr, data, nil
}

// setAllCaps sets the calling thread's sets as p says, but not more than it has.
func setAllCaps(p *handshake.Process) error {
	hdr, data, err := allCaps(p)
	if err != nil {
		return err
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	for c := range 64 {
		if p.Ambient&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", c, err)
		}
	}
	return nil
}
