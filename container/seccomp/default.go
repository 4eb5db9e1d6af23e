package seccomp

import (
	"bytes"
	_ "embed"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/internal/seccomp"
)

//go:embed default.bpf
var program []byte

// profile is the text of the profile that program was compiled from.
//
//go:embed default.profile
var profile []byte

// Known returns the program of a profile that was compiled ahead of time, or nil.
// The whole profile is compared, so one that differs in anything is not known.
func Known(p *specs.LinuxSeccomp) []byte {
	if !bytes.Equal(seccomp.Text(p), profile) {
		return nil
	}
	return slices.Clone(program)
}

// Default returns docker's default profile for a container whose capability
// bounding set is DefaultCaps: struct sock_filter in host order, eight bytes an
// instruction. The profile's rules for kernels from 4.8 on are in it; a
// container needs a newer one anyhow.
func Default() []byte { return slices.Clone(program) }
