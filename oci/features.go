package oci

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// Features says what this runtime knows (features.md).
func Features() *features.Features {
	yes, no := true, false
	var namespaces []string
	for _, t := range namespaceTypes {
		namespaces = append(namespaces, string(t.kind))
	}
	flags := []string{}
	for f := range filterFlags {
		flags = append(flags, string(f))
	}
	modes, memFlags := []string{}, []string{}
	for m := range memoryModes {
		modes = append(modes, string(m))
	}
	for f := range memoryFlags {
		memFlags = append(memFlags, string(f))
	}
	sortStrings(namespaces, flags, modes, memFlags)
	return &features.Features{
		OCIVersionMin: "1.0.0", OCIVersionMax: specs.Version,
		Hooks:        []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions: KnownMountOptions(),
		Annotations:  map[string]string{IsolationAnnotation: "container,vm", NetworkAnnotation: "none,user"},
		Linux: &features.Linux{
			Namespaces: namespaces, Capabilities: capabilities,
			Cgroup: &features.Cgroup{V1: &yes, V2: &yes, Systemd: &no, SystemdUser: &no, Rdma: &no},
			Seccomp: &features.Seccomp{
				Enabled: &yes,
				Actions: []string{string(specs.ActAllow), string(specs.ActErrno), string(specs.ActKill), string(specs.ActKillProcess),
					string(specs.ActKillThread), string(specs.ActLog), string(specs.ActNotify), string(specs.ActTrace), string(specs.ActTrap)},
				Operators: []string{string(specs.OpEqualTo), string(specs.OpGreaterEqual), string(specs.OpGreaterThan),
					string(specs.OpLessEqual), string(specs.OpLessThan), string(specs.OpMaskedEqual), string(specs.OpNotEqual)},
				Archs:      []string{string(specs.ArchX32), string(specs.ArchX86), string(specs.ArchX86_64)},
				KnownFlags: flags, SupportedFlags: flags,
			},
			Apparmor: &features.Apparmor{Enabled: &yes}, Selinux: &features.Selinux{Enabled: &no},
			IntelRdt:        &features.IntelRdt{Enabled: &no},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
			NetDevices:      &features.NetDevices{Enabled: &yes},
			MemoryPolicy:    &features.MemoryPolicy{Modes: modes, Flags: memFlags},
		},
	}
}
