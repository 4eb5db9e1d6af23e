package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/inside"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/oci/machine"
)

// Guest is what a microVM boots: files of the host.
type Guest struct {
	Kernel  string `json:"kernel"`
	Initrd  string `json:"initrd"`
	Version string `json:"version"`
}

// Machine is what is kept of a container that is a microVM.
type Machine struct {
	Guest
	Net    guestNet `json:"net"`
	Paused bool     `json:"paused,omitempty"`
	// Names are those of the uts namespace that the bundle joins, as they were.
	Names *utsNames `json:"names,omitempty"`
	// Host is what holds for the machine's processes on the host; may be nil.
	Host *specs.LinuxResources `json:"host,omitempty"`
}

// isolation is what the caller wants, or the bundle.
func (o CreateOptions) isolation(s *specs.Spec) (workload.Isolation, error) {
	want, what := o.Isolation, "--isolation"
	if want == "" {
		want, what = workload.Isolation(s.Annotations[IsolationAnnotation]), "annotation "+IsolationAnnotation
	}
	switch want {
	case "", workload.Container:
		return workload.Container, nil
	case workload.VM:
		if sandbox(s) { // its namespaces are to be the host's: a machine's have no path
			return workload.Container, nil
		}
		return workload.VM, nil
	}
	return "", fmt.Errorf("%s: %q is neither container nor vm", what, want)
}

// machine is what is kept of the microVM that o and s ask for, nil for none.
func (o CreateOptions) machine(ctx context.Context, s *specs.Spec, bundle string) (*Machine, error) {
	isolation, err := o.isolation(s)
	if err != nil || isolation == workload.Container {
		return nil, err
	}
	switch {
	case o.PreserveFDs > 0:
		return nil, notInVM("--preserve-fds", "a descriptor of the host's kernel cannot be had in the guest's")
	case o.NoNewKeyring:
		return nil, notInVM("--no-new-keyring", "the session keyring is of the host's kernel")
	case o.Guest == nil:
		return nil, errors.New("there is no guest kernel")
	}
	g, err := planGuest(s, bundle)
	if err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	for _, w := range g.warn {
		o.warn(w)
	}
	guest, err := o.Guest(ctx)
	if err != nil {
		return nil, err
	}
	m := &Machine{Guest: guest, Net: g.net, Host: g.host}
	if g.uts != "" {
		if m.Names, err = namesOf(g.uts); err != nil {
			o.warn(fmt.Sprintf("linux.namespaces: the machine does not get the names of the uts namespace %s: %v", g.uts, err))
		}
	}
	return m, nil
}

// utsNames are the names that a uts namespace holds.
type utsNames struct {
	Host   string `json:"host"`
	Domain string `json:"domain,omitempty"`
}

// namesOf reads the names of the namespace at path.
func namesOf(path string) (*utsNames, error) {
	f, err := openNamespace(specs.UTSNamespace, path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var name unix.Utsname
	done := make(chan error)
	inside.OnThread(func() {
		err := unix.Setns(int(f.Fd()), unix.CLONE_NEWUTS)
		if err == nil {
			err = unix.Uname(&name)
		}
		done <- err
	})
	if err := <-done; err != nil {
		return nil, err
	}
	n := &utsNames{Host: unix.ByteSliceToString(name.Nodename[:]), Domain: unix.ByteSliceToString(name.Domainname[:])}
	if n.Domain == "(none)" { // as the kernel says that it has none
		n.Domain = ""
	}
	return n, nil
}

// give has the guest's container called so, where its bundle has no names itself.
func (n *utsNames) give(s *specs.Spec) {
	if n == nil {
		return
	}
	if s.Hostname == "" {
		s.Hostname = n.Host
	}
	if s.Domainname == "" {
		s.Domainname = n.Domain
	}
}

// supervisorName is argv[0] of the process that has a container's machine: its
// first process to engines, which ends as the container's program does.
const supervisorName = "duplex-oci-vm"

// Init turns a process that was started from this executable into a machine's
// supervisor, or what stands for a further program in it. In any other it does
// nothing. main must call it first, after microvm.Init.
func Init() {
	if len(os.Args) != 3 {
		return
	}
	switch os.Args[0] {
	case supervisorName:
		os.Exit(supervise(os.Args[1], os.Args[2]))
	case execName:
		os.Exit(stand(os.Args[1], os.Args[2]))
	}
}

// startSupervisor starts it in a mount namespace of its own, in which the guest's
// files are put together, and in the bundle's network namespace.
func (c *Container) startSupervisor(o CreateOptions) (*child, error) {
	if err := os.Mkdir(c.path(sharedDir), 0o700); err != nil {
		return nil, err
	}
	l, err := newLayout(c.Spec.Process != nil && c.Spec.Process.Terminal, o.Stdio, 0)
	if err != nil {
		return nil, err
	}
	defer l.close()
	sys := &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		ownNamespace(sys)
	}
	var denied error
	enter := func() error { return nil }
	switch n, ok := namespace(c.Spec, specs.NetworkNamespace); {
	case c.VM.Net == netUser: // it reaches the host's network from here
	case ok && n.Path == "":
		sys.Cloneflags |= unix.CLONE_NEWNET
	case ok:
		f, err := openNamespace(n.Type, n.Path)
		if err != nil {
			return nil, err
		}
		l.owned = append(l.owned, f)
		enter = func() error {
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				denied = cannotJoin(n, err)
			}
			return denied
		}
	}
	ch, err := c.startHelper(l, supervisorName, sys, enter)
	switch {
	case denied != nil:
		return nil, denied
	case err != nil:
		return nil, noNamespaces(err)
	}
	if err := c.adopt(ch.pid); err != nil {
		ch.kill()
		ch.close()
		return nil, err
	}
	return ch, nil
}

// startHelper starts this program once more, for this container; its end of the
// handshake is descriptor 3.
func (c *Container) startHelper(l *layout, name string, sys *syscall.SysProcAttr, enter func() error) (*child, error) {
	root, err := filepath.Abs(filepath.Dir(c.dir))
	if err != nil {
		return nil, err
	}
	conn, end, err := handshake.Pair()
	if err != nil {
		return nil, err
	}
	l.add(end)
	env := []string{}
	for _, key := range []string{"HOME", "XDG_CACHE_HOME"} { // where the monitor's program is kept
		if v, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+v)
		}
	}
	return l.startProgram("/proc/self/exe", []string{name, root, c.ID}, env, sys, conn, enter)
}

// ownNamespace makes a user namespace in which the caller is the same user, with
// the right to mount what he may read.
func ownNamespace(sys *syscall.SysProcAttr) {
	sys.Cloneflags |= unix.CLONE_NEWUSER
	uid, gid := os.Geteuid(), os.Getegid()
	sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
	sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}
}

// cannotJoin says what joining a namespace takes.
func cannotJoin(n specs.LinuxNamespace, err error) error {
	out := &workload.Error{Op: fmt.Sprintf("join the %s namespace %s", n.Type, n.Path), Err: err}
	if errors.Is(err, unix.EPERM) {
		out.Err = errors.New("it takes CAP_SYS_ADMIN, here and in the user namespace that owns it")
		out.Remedy = "Run duplex as root, or give the bundle a network namespace of its own, or the annotation " + NetworkAnnotation + " with none or user."
	}
	return out
}

// noNamespaces says what the supervisor's namespaces take, where err is for want
// of that.
func noNamespaces(err error) error {
	full := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS) // user_namespaces(7)
	if !full && !errors.Is(err, unix.EPERM) {
		return err
	}
	out := &workload.Error{Op: "make the microVM's mount namespace", Err: errors.New("it takes CAP_SYS_ADMIN"),
		Remedy: "Run duplex outside the container it is in, or give that container the capability."}
	switch {
	case full:
		out.Err = errors.New("there are as many namespaces as this host allows")
		out.Remedy = "See /proc/sys/user/max_*_namespaces."
	case os.Geteuid() != 0:
		out.Err = errors.New("it takes CAP_SYS_ADMIN, and this host forbids users the user namespace that would give it")
	}
	if os.Geteuid() != 0 {
		out.Remedy = "Run duplex as root, or allow user namespaces: sysctl user.max_user_namespaces=15000, and kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0 where they exist."
	}
	return out
}

// adopt puts the supervisor into the container's groups: it waits to be told to
// go on, so all that it starts will be there.
func (c *Container) adopt(pid int) error {
	for _, d := range c.Cgroups.Dirs {
		if err := os.WriteFile(filepath.Join(d.Path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("enter the cgroup: %w", err)
		}
	}
	return nil
}

// disconnect undoes what the machine made in a network namespace that outlives it.
func (c *Container) disconnect() error {
	n, ok := namespace(c.Spec, specs.NetworkNamespace)
	if c.VM == nil || c.VM.Net != netNamespace || !ok || n.Path == "" {
		return nil
	}
	if machine.Disconnect == nil {
		return errors.New("this program makes containers only, and cannot disconnect the network of a microVM")
	}
	f, err := openNamespace(n.Type, n.Path)
	if err != nil {
		return nil // it has gone, and all in it
	}
	defer func() { _ = f.Close() }()
	done := make(chan error)
	inside.OnThread(func() {
		err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = machine.Disconnect()
		}
		done <- err
	})
	if err := <-done; err != nil && (os.Geteuid() == 0 || !errors.Is(err, unix.EPERM)) {
		return err
	}
	return nil // who may not enter has made nothing there
}
