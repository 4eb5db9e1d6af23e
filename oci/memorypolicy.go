package oci

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/cgroup"
	"github.com/duplex-run/duplex/container/handshake"
)

var memoryModes = map[specs.MemoryPolicyModeType]int{
	specs.MpolDefault: unix.MPOL_DEFAULT, specs.MpolBind: unix.MPOL_BIND, specs.MpolInterleave: unix.MPOL_INTERLEAVE,
	specs.MpolWeightedInterleave: unix.MPOL_WEIGHTED_INTERLEAVE, specs.MpolPreferred: unix.MPOL_PREFERRED,
	specs.MpolPreferredMany: unix.MPOL_PREFERRED_MANY, specs.MpolLocal: unix.MPOL_LOCAL,
}

var memoryFlags = map[specs.MemoryPolicyFlagType]int{
	specs.MpolFNumaBalancing: unix.MPOL_F_NUMA_BALANCING, specs.MpolFRelativeNodes: unix.MPOL_F_RELATIVE_NODES,
	specs.MpolFStaticNodes: unix.MPOL_F_STATIC_NODES,
}

// memoryPolicy returns the arguments of set_mempolicy(2), which says what does not
// go together.
func memoryPolicy(p *specs.LinuxMemoryPolicy) (*handshake.MemoryPolicy, error) {
	if p == nil {
		return nil, nil
	}
	mode, ok := memoryModes[p.Mode]
	if !ok {
		return nil, fmt.Errorf("linux.memoryPolicy.mode: %q is not known", p.Mode)
	}
	out := &handshake.MemoryPolicy{Mode: mode}
	for _, f := range p.Flags {
		bit, ok := memoryFlags[f]
		if !ok {
			return nil, fmt.Errorf("linux.memoryPolicy.flags: %q is not known", f)
		}
		out.Mode |= bit
	}
	var err error
	if out.Nodes, err = cgroup.ParseList(p.Nodes); err != nil {
		return nil, fmt.Errorf("linux.memoryPolicy.nodes: %q is not a list as 0-3,7", p.Nodes)
	}
	return out, nil
}
