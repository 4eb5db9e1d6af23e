package oci

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/container/handshake"
)

// filesPlan says how the container's file system is made. Sources of bind
// mounts are relative to the bundle.
func filesPlan(s *specs.Spec, bundle string) (*handshake.Files, error) {
	f := &handshake.Files{
		Rootfs: s.Root.Path, NewNamespace: newNamespace(s, specs.MountNamespace),
		User: hasNamespace(s, specs.UserNamespace), Dev: true,
		Masked: s.Linux.MaskedPaths, ReadOnly: s.Linux.ReadonlyPaths, ReadOnlyRoot: s.Root.Readonly,
	}
	if s.Process != nil {
		f.Cwd = s.Process.Cwd
	}
	var err error
	if f.Propagation, err = rootPropagation(s.Linux.RootfsPropagation); err != nil {
		return nil, err
	}
	for _, m := range s.Mounts {
		p, err := mountPlan(m)
		if err != nil {
			return nil, err
		}
		if p.Type == "" && !filepath.IsAbs(p.Source) {
			p.Source = filepath.Join(bundle, p.Source)
		}
		if p.Type == "" && p.Dest == "/dev" {
			f.Dev = false // the host's nodes are not ours to make
		}
		f.Mounts = append(f.Mounts, p)
	}
	f.Devices, err = devices(s.Linux.Devices)
	return f, err
}

// hookPlan turns hooks into what runs them.
func hookPlan(list []specs.Hook) []handshake.Hook {
	var out []handshake.Hook
	for _, h := range list {
		p := handshake.Hook{Path: h.Path, Args: h.Args, Env: h.Env}
		if h.Timeout != nil {
			p.Timeout = *h.Timeout
		}
		out = append(out, p)
	}
	return out
}

// plan makes what init executes, without descriptors and cgroups.
func plan(s *specs.Spec, id, bundle string) (*handshake.Plan, error) {
	files, err := filesPlan(s, bundle)
	if err != nil {
		return nil, err
	}
	out := &handshake.Plan{
		Files: files, Hostname: s.Hostname, Domainname: s.Domainname,
		CgroupNamespace: newNamespace(s, specs.CgroupNamespace),
		Loopback:        newNamespace(s, specs.NetworkNamespace), Keyring: "_ses." + id,
	}
	for name, value := range s.Linux.Sysctl {
		out.Sysctl = append(out.Sysctl, handshake.Setting{Key: sysctlKey(name), Value: value})
	}
	slices.SortFunc(out.Sysctl, func(a, b handshake.Setting) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	if s.Hooks != nil {
		out.CreateContainer = hookPlan(s.Hooks.CreateContainer)
		out.StartContainer = hookPlan(s.Hooks.StartContainer)
	}
	if s.Process == nil {
		return out, nil
	}
	if out.Process, err = processPlan(s.Process, 0); err != nil {
		return nil, err
	}
	if out.Process.Personality, err = personality(s.Linux.Personality); err != nil {
		return nil, err
	}
	filter, err := Seccomp(s.Linux.Seccomp)
	if err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	if filter != nil {
		out.Process.Seccomp, out.Process.SeccompFlags, out.Process.Notify = filter.Program, filter.Flags, filter.Notify
	}
	out.Process.Landlock = landlock(s, out.Process)
	return out, nil
}
