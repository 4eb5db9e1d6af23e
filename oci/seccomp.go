package oci

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	known "github.com/duplex-run/duplex/container/seccomp"
	"github.com/duplex-run/duplex/internal/seccomp"
)

// Filter is a bundle's seccomp profile, compiled.
type Filter struct {
	Program []byte // struct sock_filter, eight bytes an instruction
	Flags   uint32 // SECCOMP_FILTER_FLAG_*
	Notify  bool   // it has a listener
}

var filterFlags = map[specs.LinuxSeccompFlag]uint32{
	specs.LinuxSeccompFlagLog:              unix.SECCOMP_FILTER_FLAG_LOG,
	specs.LinuxSeccompFlagSpecAllow:        unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
	specs.LinuxSeccompFlagWaitKillableRecv: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
	"SECCOMP_FILTER_FLAG_TSYNC":            0, // runc's: one thread is left to execve
}

// Seccomp compiles linux.seccomp; nil when there is none.
func Seccomp(p *specs.LinuxSeccomp) (*Filter, error) {
	if p == nil {
		return nil, nil
	}
	f := &Filter{}
	for _, name := range p.Flags {
		bit, ok := filterFlags[name]
		if !ok {
			return nil, unsupported("linux.seccomp.flags", fmt.Sprintf("%q is not known", name))
		}
		f.Flags |= bit
	}
	notify := func(c specs.LinuxSyscall) bool { return c.Action == specs.ActNotify }
	f.Notify = slices.ContainsFunc(p.Syscalls, notify)
	switch {
	case p.DefaultAction == specs.ActNotify:
		return nil, fmt.Errorf("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY would stop duplex itself")
	case f.Notify && !strings.HasPrefix(p.ListenerPath, "/"):
		return nil, fmt.Errorf("linux.seccomp.listenerPath: SCMP_ACT_NOTIFY needs one, an absolute path")
	case !f.Notify && p.ListenerPath+p.ListenerMetadata != "":
		return nil, fmt.Errorf("linux.seccomp.listenerPath: no rule of the profile has SCMP_ACT_NOTIFY")
	}
	for _, c := range p.Syscalls {
		// The listener is sent on and the rest of the set-up done under the filter.
		if notify(c) && (slices.Contains(c.Names, "write") || slices.Contains(c.Names, "sendmsg")) {
			return nil, fmt.Errorf("linux.seccomp.syscalls: SCMP_ACT_NOTIFY of write or sendmsg would stop duplex itself")
		}
	}
	if f.Notify {
		f.Flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	profile := *p
	if len(profile.Architectures) == 0 {
		profile.Architectures = []specs.Arch{specs.ArchX86_64}
	}
	if f.Program = known.Known(&profile); f.Program != nil {
		return f, nil
	}
	prog, err := seccomp.Compile(&profile)
	if err != nil {
		return nil, fmt.Errorf("linux.seccomp: %w", err)
	}
	for _, in := range prog {
		f.Program = binary.NativeEndian.AppendUint16(f.Program, in.Code)
		f.Program = append(f.Program, in.Jt, in.Jf)
		f.Program = binary.NativeEndian.AppendUint32(f.Program, in.K)
	}
	return f, nil
}
