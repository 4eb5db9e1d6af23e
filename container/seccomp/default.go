package seccomp

import (
	_ "embed"
	"slices"
)

//go:embed default.bpf
var program []byte

// Default returns docker's default profile for a container whose capability
// bounding set is DefaultCaps: struct sock_filter in host order, eight bytes an
// instruction. The profile's rules for kernels from 4.8 on are in it; a
// container needs a newer one anyhow.
func Default() []byte { return slices.Clone(program) }
