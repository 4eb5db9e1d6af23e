package oci

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/netif"
)

// checkNetDevices checks what is to be moved (config-linux.md, "Network Devices").
func checkNetDevices(s *specs.Spec) error {
	list := s.Linux.NetDevices
	if len(list) == 0 {
		return nil
	}
	if !hasNamespace(s, specs.NetworkNamespace) {
		return errors.New("linux.netDevices: it needs a network namespace to move them to")
	}
	names := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		as := list[name].Name
		if as == "" {
			as = name
		}
		switch {
		case !netif.ValidName(name, false):
			return fmt.Errorf("linux.netDevices: %q is not the name of an interface", name)
		case !netif.ValidName(as, true):
			return fmt.Errorf("linux.netDevices: %s: %q is not a name for an interface", name, as)
		case names[as] != "":
			return fmt.Errorf("linux.netDevices: %s and %s are both to be %s", names[as], name, as)
		}
		names[as] = name
	}
	return nil
}

// moveNetDevices moves interfaces of the host to the network namespace of the
// container's first process.
func (c *Container) moveNetDevices() error {
	list := c.Spec.Linux.NetDevices
	if len(list) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("linux.netDevices: moving interfaces of the host takes root")
	}
	to, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.Pid))
	if err != nil {
		return &handshake.StepError{Step: "move the network devices", Err: err}
	}
	defer func() { _ = to.Close() }()
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if err := netif.Move(name, list[name].Name, to); err != nil {
			return &handshake.StepError{Step: "move the network device " + name, Err: err}
		}
	}
	return nil
}
