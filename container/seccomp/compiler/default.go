// Package compiler compiles docker's default profile, ahead of time: duplex does
// not link it, nor the profile.
package compiler

import (
	"encoding/binary"
	"fmt"

	profile "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/internal/seccomp"
)

// Default compiles docker's default profile for a container whose capability
// bounding set is caps ("CAP_CHOWN", ...), on a kernel as new as this one. The
// program comes as struct sock_filter, eight bytes an instruction, in
// little-endian order: every architecture that Compile knows has it. text is the
// profile by seccomp.Text.
func Default(caps []string) (program, text []byte, err error) {
	p, err := profile.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the default seccomp profile: %w", err)
	}
	prog, err := seccomp.Compile(p)
	if err != nil {
		return nil, nil, err
	}
	out := make([]byte, 0, 8*len(prog))
	for _, i := range prog {
		out = binary.LittleEndian.AppendUint16(out, i.Code)
		out = append(out, i.Jt, i.Jf)
		out = binary.LittleEndian.AppendUint32(out, i.K)
	}
	return out, seccomp.Text(p), nil
}
