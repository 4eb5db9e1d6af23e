package runcli

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/container"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/workload"
)

// securityFlags switch layers of a container's isolation, by docker's names where
// docker has them.
type securityFlags struct {
	capAdd, capDrop, securityOpt []string
	userns                       string
	namespaces                   map[string]*string // by flag: host or private
}

// namespaceFlags are the namespaces that can be the host's, and what that gives up.
var namespaceFlags = []struct{ name, gives string }{
	{"pid", "the workload sees the host's processes, and may signal and trace those of its user"},
	{"ipc", "the workload may use the host's shared memory, semaphores and message queues"},
	{"uts", "the workload has the host's name"},
	{"cgroupns", "the workload sees the names of the host's cgroups"},
}

func (f *securityFlags) Register(fs *pflag.FlagSet) {
	fs.StringSliceVar(&f.capAdd, "cap-add", nil, "give a container `CAPABILITY` beside docker's set, or ALL")
	fs.StringSliceVar(&f.capDrop, "cap-drop", nil, "take `CAPABILITY` from a container, or ALL")
	cmdline.ListVar(fs, &f.securityOpt, "security-opt", "", "of a container: seccomp=unconfined, landlock=unconfined, apparmor=`PROFILE` or unconfined, systempaths=unconfined, no-new-privileges=false")
	fs.StringVar(&f.userns, "userns", "", "private: a container has users of its own, and its root is nobody on the host (the default without root); host: the host's (the default for root)")
	f.namespaces = map[string]*string{}
	for _, n := range namespaceFlags {
		f.namespaces[n.name] = fs.String(n.name, "private", "private or host: with host, "+n.gives)
	}
}

// securityNames are the flags of securityFlags.
func securityNames() []string {
	out := []string{"cap-add", "cap-drop", "security-opt", "userns"}
	for _, n := range namespaceFlags {
		out = append(out, n.name)
	}
	return out
}

// parse returns the layers of a container, and what they give up, a line each.
func (f *securityFlags) parse(a *App, fs *pflag.FlagSet, iso workload.Isolation) (container.Layers, []string, error) {
	l := container.Layers{AddCaps: f.capAdd, DropCaps: f.capDrop}
	if iso == workload.VM {
		for _, name := range securityNames() {
			if fs.Changed(name) {
				return l, nil, a.Usage("--%s is for containers: a microVM has a kernel of its own", name)
			}
		}
		return l, nil, nil
	}
	var gives []string
	for _, o := range f.securityOpt {
		line, err := securityOption(&l, o)
		if err != nil {
			return l, nil, a.Usage("--security-opt=%s: %v", o, err)
		}
		if line != "" {
			gives = append(gives, fmt.Sprintf("--security-opt %s: %s", o, line))
		}
	}
	for _, n := range namespaceFlags {
		switch v := *f.namespaces[n.name]; v {
		case "host":
			*hostNamespace(&l, n.name) = true
			gives = append(gives, fmt.Sprintf("--%s host: %s", n.name, n.gives))
		case "private":
		default:
			return l, nil, a.Usage("--%s=%s: want private or host", n.name, v)
		}
	}
	switch {
	case f.userns == "private":
		l.UserNS = os.Geteuid() == 0
	case f.userns == "host" && os.Geteuid() != 0:
		return l, nil, a.Usage("--userns host is for root: without, only a user namespace gives the right to make a container")
	case f.userns != "" && f.userns != "host":
		return l, nil, a.Usage("--userns=%s: want private or host", f.userns)
	}
	if l.HostPID && !l.NoLandlock {
		gives = append(gives, "--pid host: no Landlock either, which would forbid tracing the host's processes")
	}
	if l.HostUTS && fs.Changed("hostname") {
		return l, nil, a.Usage("--hostname and --uts host exclude each other: it would be the host's name")
	}
	if len(f.capAdd) > 0 {
		gives = append(gives, "--cap-add "+strings.Join(f.capAdd, ",")+": the workload's root has it, and the system calls that docker's filter opens with it")
	}
	if err := l.Check(); err != nil {
		return l, nil, a.Usage("%v", err)
	}
	return l, gives, nil
}

func hostNamespace(l *container.Layers, flag string) *bool {
	return map[string]*bool{"pid": &l.HostPID, "ipc": &l.HostIPC, "uts": &l.HostUTS, "cgroupns": &l.HostCgroup}[flag]
}

// securityOption takes one --security-opt and returns what it gives up.
func securityOption(l *container.Layers, o string) (string, error) {
	key, value, has := strings.Cut(strings.Replace(o, ":", "=", 1), "=")
	off := func(layer *bool, gives string) (string, error) {
		if value != "unconfined" {
			return "", fmt.Errorf("want %s=unconfined", key)
		}
		*layer = true
		return gives, nil
	}
	switch key {
	case "seccomp":
		return off(&l.NoSeccomp, "the workload may make every system call, and user namespaces of its own")
	case "landlock":
		return off(&l.NoLandlock, "nothing keeps the workload from devices outside /dev and, with the host's network, from the host's abstract sockets")
	case "systempaths":
		return off(&l.NoMasks, "the workload sees and writes to parts of /proc and /sys that are the host's")
	case "apparmor":
		if value == "" {
			return "", fmt.Errorf("want apparmor=PROFILE or apparmor=unconfined")
		}
		if l.AppArmor = value; value == container.UnconfinedAppArmor {
			return "no AppArmor profile", nil
		}
		return "", nil
	case "no-new-privileges":
		on, err := strconv.ParseBool(value)
		if has && err != nil {
			return "", fmt.Errorf("want true or false")
		}
		if l.NewPrivileges = has && !on; l.NewPrivileges {
			return "set-id programs in the image make their user root", nil
		}
		return "", nil
	}
	known := []string{"apparmor", "landlock", "no-new-privileges", "seccomp", "systempaths"}
	return "", fmt.Errorf("want one of %s", strings.Join(known, ", "))
}
