package container

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/cgroup"
	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/workload"
)

// explain makes err the *workload.Error that the user sees, with the remedy
// where one is known.
func (r *run) explain(err error) error {
	var known *workload.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	out := &workload.Error{Op: "container", Err: err}
	var se *handshake.StepError
	if errors.As(err, &se) {
		out.Op, out.Err = "container: "+se.Step, se.Err
	}
	var missing *cgroup.MissingError
	var remedied interface{ Remedy() string }
	switch {
	case errors.As(err, &remedied):
		out.Remedy = remedied.Remedy()
	case errors.As(err, &missing) && os.Geteuid() != 0:
		out.Remedy = "Run duplex as root, or have the " + missing.Controller + " controller delegated to this user (systemd: Delegate= of user@.service) and start duplex there, for example with systemd-run --user --scope."
	case errors.As(err, &missing):
		out.Remedy = "Leave the limit out, or mount a cgroup hierarchy with the " + missing.Controller + " controller."
	case errors.Is(err, unix.ENOSYS):
		out.Remedy = "Containers need Linux 5.12 or newer."
	case se != nil && se.Step == handshake.StepTUN && errors.Is(err, os.ErrPermission):
		out.Remedy = "The user-mode network makes a TAP device: let users open /dev/net/tun, as distributions do (chmod 0666 /dev/net/tun), or run duplex as root."
	case se != nil && se.Step == handshake.StepTUN:
		out.Remedy = "The user-mode network makes a TAP device: load the tun module (modprobe tun), or give the container duplex runs in the device /dev/net/tun."
	case se != nil && se.Step == "mount the image" && r.ids.own && errors.Is(err, unix.EINVAL):
		out.Remedy = "The image's file system has no id-mapped mounts in this kernel (EROFS has since Linux 5.19, tmpfs since 6.3): leave --userns private out."
	case se != nil && se.Step == "mount the image":
		out.Remedy = "Load the erofs module, and loop before Linux 6.12 (modprobe erofs loop)."
	case se != nil && se.Step == "mount the overlay" && r.ids.rootless && !r.ids.own && errors.Is(err, unix.EPERM):
		out.Remedy = "Without root, overlays need Linux 5.11 or newer: run duplex as root."
	case se != nil && se.Step == "create the namespaces" && errors.Is(err, unix.EPERM) && r.ids.rootless && !r.ids.own:
		out.Remedy = "This host forbids user namespaces to users (kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns): run duplex as root, or allow them."
	case se != nil && se.Step == "create the namespaces" && errors.Is(err, unix.EPERM):
		out.Remedy = "Root needs CAP_SYS_ADMIN for that: run duplex outside the container it is in, or give that container the capability."
	case se != nil && se.Step == "create the namespaces" && errors.Is(err, unix.ENOSPC):
		out.Remedy = "The limit of namespaces is reached: see /proc/sys/user/max_*_namespaces."
	}
	return out
}
