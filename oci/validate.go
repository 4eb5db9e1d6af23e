package oci

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// validate checks everything about spec that needs no look at the host.
func validate(s *specs.Spec) error {
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	for _, check := range []func(*specs.Spec) error{
		otherPlatforms, checkRoot, checkProcess, checkNamespaces, checkIDMaps,
		checkMounts, checkHooks, checkSysctls, checkDevices, checkNetDevices, checkNotSupported, checkPaths, checkLandlock,
	} {
		if err := check(s); err != nil {
			return err
		}
	}
	return nil
}

func otherPlatforms(s *specs.Spec) error {
	for name, there := range map[string]bool{
		"solaris": s.Solaris != nil, "windows": s.Windows != nil, "vm": s.VM != nil,
		"zos": s.ZOS != nil, "freebsd": s.FreeBSD != nil,
	} {
		if there {
			return unsupported(name, "this is a Linux runtime")
		}
	}
	return nil
}

// unsupported is the error for a property that is known and not supported.
func unsupported(name, why string) error {
	return fmt.Errorf("%s is not supported: %s", name, why)
}

func checkRoot(s *specs.Spec) error {
	if s.Root == nil || s.Root.Path == "" {
		return errors.New("root.path is missing")
	}
	return plain("root.path", s.Root.Path)
}

// plain refuses strings that no system call takes.
func plain(what, s string) error {
	if strings.ContainsRune(s, 0) {
		return fmt.Errorf("%s: it has a NUL character", what)
	}
	return nil
}

func checkProcess(s *specs.Spec) error {
	p := s.Process
	if p == nil {
		return nil // create takes that, start does not (runtime.md, "Start")
	}
	if err := CheckProcess(p); err != nil {
		return err
	}
	if p.ConsoleSize != nil && (p.ConsoleSize.Height > 65535 || p.ConsoleSize.Width > 65535) {
		return fmt.Errorf("process.consoleSize: %dx%d is out of range", p.ConsoleSize.Height, p.ConsoleSize.Width)
	}
	return nil
}

// CheckProcess checks the process of a bundle, or of exec.
func CheckProcess(p *specs.Process) error {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return errors.New("process.args is empty")
	}
	if !path.IsAbs(p.Cwd) {
		return fmt.Errorf("process.cwd: %q is not an absolute path", p.Cwd)
	}
	if p.CommandLine != "" {
		return unsupported("process.commandLine", "that is of Windows")
	}
	if p.User.Username != "" {
		return unsupported("process.user.username", "that is of Windows: give uid and gid")
	}
	if p.SelinuxLabel != "" {
		return unsupported("process.selinuxLabel", "duplex does not set SELinux labels")
	}
	for _, list := range [][]string{p.Args, p.Env, {p.Cwd, p.ApparmorProfile}} {
		for _, v := range list {
			if err := plain("process", v); err != nil {
				return err
			}
		}
	}
	for _, e := range p.Env {
		if strings.HasPrefix(e, "=") || !strings.Contains(e, "=") {
			return fmt.Errorf("process.env: %q is not KEY=VALUE", e)
		}
	}
	_, err := processPlan(p, 0)
	return err
}

func checkPaths(s *specs.Spec) error {
	l := s.Linux
	for what, list := range map[string][]string{
		"linux.maskedPaths": l.MaskedPaths, "linux.readonlyPaths": l.ReadonlyPaths,
	} {
		for _, p := range list {
			if !path.IsAbs(p) {
				return fmt.Errorf("%s: %q is not an absolute path", what, p)
			}
			if err := plain(what, p); err != nil {
				return err
			}
		}
	}
	for what, v := range map[string]string{"hostname": s.Hostname, "domainname": s.Domainname} {
		if len(v) > 64 {
			return fmt.Errorf("%s: longer than 64 bytes", what)
		}
		if v != "" && !hasNamespace(s, specs.UTSNamespace) {
			return fmt.Errorf("%s: it needs a uts namespace: it would be the host's", what)
		}
	}
	if strings.ContainsAny(l.CgroupsPath, "\x00\n") {
		return errors.New("linux.cgroupsPath: it has a NUL or newline character")
	}
	_, err := rootPropagation(l.RootfsPropagation)
	return err
}

func checkNotSupported(s *specs.Spec) error {
	l := s.Linux
	switch {
	case l.MountLabel != "":
		return unsupported("linux.mountLabel", "duplex does not set SELinux labels")
	case l.IntelRdt != nil:
		return unsupported("linux.intelRdt", "duplex does not manage resctrl")
	case l.Resources != nil && len(l.Resources.Rdma) > 0:
		return unsupported("linux.resources.rdma", "duplex does not manage RDMA")
	}
	_, err := memoryPolicy(l.MemoryPolicy)
	_, perr := personality(l.Personality)
	if err != nil {
		return err
	}
	return perr
}

func checkHooks(s *specs.Spec) error {
	if s.Hooks == nil {
		return nil
	}
	h := s.Hooks
	for name, list := range map[string][]specs.Hook{
		//lint:ignore SA1019 deprecated, and still in bundles
		"prestart": h.Prestart, "createRuntime": h.CreateRuntime, "createContainer": h.CreateContainer,
		"startContainer": h.StartContainer, "poststart": h.Poststart, "poststop": h.Poststop,
	} {
		for i, hook := range list {
			if !path.IsAbs(hook.Path) {
				return fmt.Errorf("hooks.%s[%d].path: %q is not an absolute path", name, i, hook.Path)
			}
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				return fmt.Errorf("hooks.%s[%d].timeout: %d is not above 0", name, i, *hook.Timeout)
			}
			for _, v := range slices.Concat(hook.Args, hook.Env, []string{hook.Path}) {
				if err := plain("hooks."+name, v); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// ipcSysctls are the parameters outside fs.mqueue that belong to an ipc
// namespace (namespaces(7)).
var ipcSysctls = []string{
	"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall",
	"kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced",
}

// sysctlKey returns the path below /proc/sys of a parameter that is spelled with
// dots or slashes (sysctl(8): the first separator decides).
func sysctlKey(name string) string {
	i := strings.IndexAny(name, "./")
	if i < 0 || name[i] == '/' {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}

func checkSysctls(s *specs.Spec) error {
	for name, value := range s.Linux.Sysctl {
		key := sysctlKey(name)
		need := specs.LinuxNamespaceType("")
		switch {
		case slices.Contains(ipcSysctls, key) || strings.HasPrefix(key, "fs/mqueue/"):
			need = specs.IPCNamespace
		case strings.HasPrefix(key, "net/"):
			need = specs.NetworkNamespace
		case key == "kernel/domainname":
			need = specs.UTSNamespace
		case key == "kernel/hostname":
			return fmt.Errorf("linux.sysctl: %s: set hostname instead", name)
		case strings.HasPrefix(key, "user/"):
			need = specs.UserNamespace
		default:
			return fmt.Errorf("linux.sysctl: %s is not of a namespace: it would change the host", name)
		}
		if !hasNamespace(s, need) {
			return fmt.Errorf("linux.sysctl: %s needs a %s namespace: it would change the host", name, need)
		}
		if path.Clean("/"+key) != "/"+key || strings.ContainsRune(value, 0) {
			return fmt.Errorf("linux.sysctl: %q is not a parameter", name)
		}
	}
	return nil
}

// warnings says what of spec has no effect, where the specification or the
// kernel has it so.
func warnings(s *specs.Spec) []string {
	var out []string
	for _, m := range s.Mounts {
		p, err := mountPlan(m)
		if err == nil && p.Type == "" && len(p.Data) > 0 {
			out = append(out, fmt.Sprintf("mounts: options %v of %s mean nothing to a bind mount, and to mount(2)", p.Data, m.Destination))
		}
	}
	//lint:ignore SA1019 deprecated, and still in bundles
	if r := s.Linux.Resources; r != nil && r.Memory != nil && r.Memory.Kernel != nil {
		out = append(out, "linux.resources.memory.kernel has no effect: Linux 5.11 and newer have no such limit")
	}
	if p := s.Process; p != nil && p.Capabilities != nil {
		c := p.Capabilities
		for _, name := range slices.Concat(c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient) {
			if !slices.Contains(capabilities, name) {
				out = append(out, fmt.Sprintf("process.capabilities: %q is not known", name))
			}
		}
	}
	return slices.Compact(out)
}
