package inside

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/workload"
)

// execMain turns the calling process, in a session of its own, into the workload,
// as a child of init, or into a further command of a container that runs. It
// returns only when it could not.
func execMain(c handshake.Conn) error {
	m, err := c.Expect(handshake.KindExecute)
	if err != nil || m.Execute == nil {
		return &handshake.StepError{Step: "start the workload's process", Err: errors.Join(err, errors.New("no spec"))}
	}
	e := m.Execute
	if _, err := c.Expect(handshake.KindGo); err != nil {
		return &handshake.StepError{Step: "start the workload's process", Err: err}
	}
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"enter the container", func() error { return join(e.Join, true) }},
		{"open the terminal", func() error { return openTerminal(c, e.Spec, len(e.Join) == 0) }},
		{"enter the cgroup namespace", func() error { return enterCgroups(e) }},
		{"make a session keyring", newKeyring},
		{"reset the signals", defaultSignals},
		{"raise the resource limits", func() error { return raiseRlimits(e.Spec.Rlimits) }},
		{"set the OOM score", func() error { return adjustOOMScore(e.Spec.Resources.Host) }},
	} {
		if err := step.run(); err != nil {
			return &handshake.StepError{Step: step.name, Err: err}
		}
	}
	unix.Umask(0o022)
	path, exit, err := launch.Prepare(e.Spec)
	if err != nil {
		return &handshake.StepError{Step: "prepare the workload", Err: err}
	}
	if exit != nil {
		return c.Send(handshake.Message{Kind: handshake.KindExit, Exit: exit})
	}
	if err := restrict(e); err != nil {
		return err
	}
	if err := limitPids(e); err != nil {
		return &handshake.StepError{Step: "limit the processes", Err: err}
	}
	err = c.Send(handshake.Message{Kind: handshake.KindExecuting, Stamps: []handshake.Stamp{{Phase: workload.PhaseWorkload, Ns: workload.Now()}}})
	if err != nil {
		return err
	}
	if err := setRlimits(e.Spec.Rlimits); err != nil {
		return err
	}
	err = unix.Exec(path, e.Spec.Argv, launch.Environ(e.Spec))
	return c.Send(handshake.Message{Kind: handshake.KindExit, Exit: launch.ExecFailed(e.Spec.Argv[0], err)})
}

// newKeyring leaves the caller's session keyring, which would otherwise be
// shared with the host. Kernels without keys, and filters that forbid them, are
// fine: then there is nothing to leave.
func newKeyring() error {
	// x/sys cannot pass the null pointer that means "anonymous".
	_, _, errno := unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if errno == 0 || errno == unix.ENOSYS || errno == unix.EPERM {
		return nil
	}
	return errno
}

// defaultSignals gives back their default action to signals that duplex was
// started with ignored (nohup, a shell's background job): execve(2) resets
// handlers, but keeps ignored signals ignored. Go's runtime must keep its own
// handlers of the standard signals until then; it has none of 32 and 33, which
// make(1) leaves ignored in everything it starts.
func defaultSignals() error {
	for n := unix.Signal(1); n <= 31; n++ {
		if signal.Ignored(n) {
			signal.Notify(make(chan os.Signal, 1), n)
		}
	}
	return errors.Join(defaultAction(32), defaultAction(33))
}

// restrict gives up all the workload must not have, in the only order possible:
// the bounding set while CAP_SETPCAP is there, ids while CAP_SETUID is, the
// filter last because it forbids much of the above.
func restrict(e *handshake.Execute) error {
	keep := e.Caps
	steps := []ociStep{
		{"make the root read-only", func() error { return readOnlyRoot(e.Spec.ReadOnly) }},
		{"set the AppArmor profile", func() error { return setAppArmor(e.AppArmor) }},
		{"drop capabilities", func() error { return dropBounding(keep) }},
		{"become the user", func() error { return becomeUser(e) }},
		{"drop capabilities", func() error { return setCaps(keep) }},
		{"close descriptors", func() error { return unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) }},
	}
	// The domain and the filter take no_new_privs, or CAP_SYS_ADMIN while it is
	// there.
	last := []ociStep{
		{"enter the Landlock domain", func() error { return enterLandlock(e.Landlock) }},
		{"install the seccomp filter", func() error { return filterIfAny(e.Seccomp) }},
	}
	if e.NewPrivileges {
		steps = slices.Insert(steps, 2, last...)
	} else {
		steps = append(steps, ociStep{"set no_new_privs", func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }})
		steps = append(steps, last...)
	}
	for _, step := range steps {
		if err := step.run(); err != nil {
			return &handshake.StepError{Step: step.name, Err: err}
		}
	}
	return nil
}

func adjustOOMScore(h *workload.HostLimits) error {
	if h == nil || h.OOMScoreAdj == nil {
		return nil
	}
	return writeProc("self/oom_score_adj", strconv.Itoa(*h.OOMScoreAdj))
}

func filterIfAny(filter []byte) error {
	if len(filter) == 0 {
		return nil
	}
	return installSeccomp(filter)
}

// readOnlyRoot comes after the working directory was made.
func readOnlyRoot(wanted bool) error {
	if !wanted {
		return nil
	}
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return setAttrs(root, unix.MOUNT_ATTR_RDONLY, false)
}

// becomeUser takes the workload's ids. In a user namespace with one id there is
// nothing to take, and setgroups(2) is denied.
func becomeUser(e *handshake.Execute) error {
	u := e.Spec.User
	if e.SingleID {
		if u.UID != 0 || u.GID != 0 {
			return fmt.Errorf("user %d:%d is not mapped: %w", u.UID, u.GID, unix.EINVAL)
		}
		return nil
	}
	return launch.Credentials(u)
}
