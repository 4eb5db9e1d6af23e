package container

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/parts"
	"github.com/duplex-run/duplex/container/seccomp"
	"github.com/duplex-run/duplex/internal/confine"
	"github.com/duplex-run/duplex/internal/workload"
)

// Layers are what keeps a workload in its container, one by one. The zero Layers
// is all of them.
type Layers struct {
	// HostPID, HostIPC, HostUTS and HostCgroup leave out a namespace: the
	// workload is in the host's.
	HostPID, HostIPC, HostUTS, HostCgroup bool
	// UserNS gives root a user namespace, which others always have: the workload's
	// users are none of the host's.
	UserNS bool
	// AddCaps and DropCaps change docker's set of capabilities: names, with or
	// without CAP_, or ALL. What is added and dropped is dropped, but for ALL.
	AddCaps, DropCaps []string
	// NoSeccomp, NoLandlock and NoMasks leave out the filter, the Landlock domain,
	// and the masked and read-only paths.
	NoSeccomp, NoLandlock, NoMasks bool
	// NewPrivileges leaves out no_new_privs: set-id programs gain what they are
	// made for.
	NewPrivileges bool
	// AppArmor is the profile to run under, one that is loaded; "" is the one of
	// package apparmor where the host has AppArmor, UnconfinedAppArmor is none.
	AppArmor string
}

// Check says what is wrong with l, without making anything.
func (l Layers) Check() error {
	_, err := l.caps()
	if err == nil && os.Geteuid() != 0 && l.HostPID {
		err = errors.New("the host's PID namespace is for root: another user may not mount its procfs")
	}
	if err == nil && l.UserNS && l.HostPID {
		err = errors.New("a user namespace and the host's PID namespace exclude each other: procfs could not be mounted")
	}
	return err
}

// caps is the set of capabilities that the workload may have.
func (l Layers) caps() (uint64, error) {
	set := seccomp.DefaultCapSet()
	add, allAdded, err := capSet(l.AddCaps)
	if err != nil {
		return 0, err
	}
	drop, allDropped, err := capSet(l.DropCaps)
	if err != nil {
		return 0, err
	}
	switch { // as docker has it
	case allAdded:
		return add &^ drop, nil
	case allDropped:
		return add, nil
	}
	return (set | add) &^ drop, nil
}

// capSet is the set of names, and whether ALL is among them. That does not put
// any into the set of those to drop, so that others can be added back.
func capSet(names []string) (set uint64, all bool, err error) {
	for _, name := range names {
		upper := strings.ToUpper(name)
		if upper == "ALL" {
			all = true
			continue
		}
		i := slices.Index(seccomp.Capabilities, "CAP_"+strings.TrimPrefix(upper, "CAP_"))
		if i < 0 {
			return 0, false, fmt.Errorf("%q is not a capability", name)
		}
		set |= 1 << i
	}
	return set, all, nil
}

// errNotLinked reports a container that a program without package parts/all cannot
// make.
var errNotLinked = errors.New("this program makes plain containers only")

// Linked says whether this program can make such containers; see package parts.
func (o Runner) Linked() bool {
	caps, err := o.Layers.caps()
	_, all, _ := capSet(o.Layers.AddCaps)
	plain := err == nil && !all && caps == seccomp.DefaultCapSet() || o.Layers.NoSeccomp
	return o.Network.linked() && (plain || parts.CompileFilter != nil)
}

// resolved is what Layers come to on this host.
type resolved struct {
	Layers
	caps     uint64
	filter   []byte
	apparmor string
}

func (l Layers) resolve() (*resolved, error) {
	if err := l.Check(); err != nil {
		return nil, &workload.Error{Op: "container", Err: err}
	}
	out := &resolved{Layers: l}
	out.caps, _ = l.caps() // Check was content
	if _, all, _ := capSet(l.AddCaps); all {
		drop, _, _ := capSet(l.DropCaps)
		out.caps = bounding() &^ drop
	}
	if missing := out.caps &^ bounding(); os.Geteuid() == 0 && missing != 0 {
		return nil, &workload.Error{Op: "container: add capabilities",
			Err:    fmt.Errorf("duplex itself does not have %s", strings.Join(seccomp.Names(missing), ", ")),
			Remedy: "Run duplex outside the container it is in, or give that container the capability."}
	}
	var err error
	if out.filter, err = l.program(out.caps); err != nil {
		return nil, err
	}
	out.apparmor, err = l.profile()
	return out, err
}

// bounding is the set of capabilities this process may hand on.
func bounding() uint64 {
	var have uint64
	for c := range seccomp.Capabilities {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && v == 1 {
			have |= 1 << c
		}
	}
	return have
}

// program is docker's filter for a set of capabilities.
func (l Layers) program(caps uint64) ([]byte, error) {
	switch {
	case l.NoSeccomp:
		return nil, nil
	case caps == seccomp.DefaultCapSet():
		return seccomp.Default(), nil
	}
	if parts.CompileFilter == nil {
		return nil, &workload.Error{Op: "container: compile the seccomp filter", Err: errNotLinked}
	}
	prog, err := parts.CompileFilter(seccomp.Names(caps))
	if err != nil {
		return nil, &workload.Error{Op: "container: compile the seccomp filter", Err: err}
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, &workload.Error{Op: "container", Err: errors.New("big-endian hosts are not supported")}
	}
	return prog, nil
}

// landlock is the domain of the workload; nil is none. See docs/threat-model.md.
func (r *run) landlock() *confine.Workload {
	l := r.layers
	if l.NoLandlock || l.HostPID {
		return nil
	}
	w := &confine.Workload{
		Files:   len(l.filter) > 0 && l.caps&(1<<unix.CAP_SYS_ADMIN) == 0,
		NoNodes: r.ids.rootless || l.caps&(1<<unix.CAP_MKNOD) == 0,
		Sockets: r.network.Mode == NetworkHost,
		Devices: []string{"/dev"},
	}
	if !w.Files && !w.Sockets {
		return nil
	}
	for _, v := range r.spec.Volumes {
		var st unix.Stat_t
		if unix.Stat(v.Host, &st) == nil && (st.Mode&unix.S_IFMT == unix.S_IFCHR || st.Mode&unix.S_IFMT == unix.S_IFBLK) {
			w.Devices = append(w.Devices, v.Guest)
		}
	}
	return w
}

// cloneFlags are the namespaces to make, beside the network's.
func (l *resolved) cloneFlags() uintptr {
	flags := uintptr(unix.CLONE_NEWNS)
	for flag, shared := range map[uintptr]bool{
		unix.CLONE_NEWPID: l.HostPID, unix.CLONE_NEWIPC: l.HostIPC, unix.CLONE_NEWUTS: l.HostUTS,
	} {
		if !shared {
			flags |= flag
		}
	}
	return flags
}

// shared tells init which namespaces are the host's.
func (l *resolved) shared() handshake.Shared {
	return handshake.Shared{PID: l.HostPID, IPC: l.HostIPC, UTS: l.HostUTS, Cgroup: l.HostCgroup}
}

// hangUp has an init that is no PID 1 end its children and itself, or kills it
// when it does not; its cgroup goes with what is in it.
func (r *run) hangUp() {
	if raw, err := r.conn.F.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
	r.hungUp.Do(func() { time.AfterFunc(5*time.Second, func() { _ = r.init.Kill() }) })
}
