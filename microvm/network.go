package microvm

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/network/proxy"
	"github.com/duplex-run/duplex/network/user"
	"github.com/duplex-run/duplex/vmm/virtio/net"
)

// networks are the user-mode networks of a machine. They live in the caller's
// process, as they have to reach the host's network; the monitor has one socket
// to each.
type networks struct {
	stacks []*user.Stack
	ends   map[int]*os.File // the devices' ends, by number of the interface
}

// startNetworks makes the user-mode networks and publishes their ports. report is
// told of each published port.
func (h *Hardware) startNetworks() (_ *networks, err error) {
	n := &networks{ends: map[int]*os.File{}}
	defer func() {
		if err != nil {
			err = errors.Join(&workload.Error{Op: "make the user-mode network", Err: err}, n.close())
		}
	}()
	for i, nic := range h.Networks {
		if nic.Tap != "" {
			continue
		}
		s, err := user.New(user.Config{})
		if err != nil {
			return n, err
		}
		n.stacks = append(n.stacks, s)
		for _, text := range nic.Publish {
			port, err := proxy.ParsePort(text)
			if err != nil {
				return n, err
			}
			if _, err := s.Publish(port); err != nil {
				return n, fmt.Errorf("publish %s: %w", text, err)
			}
		}
		end, err := s.Connect()
		if err != nil {
			return n, err
		}
		n.ends[i] = end
	}
	return n, nil
}

// close ends the networks; the devices' ends are their own.
func (n *networks) close() error {
	var errs error
	for _, s := range n.stacks {
		errs = errors.Join(errs, s.Close())
	}
	return errs
}

// hand gives the devices' ends to give.
func (n *networks) hand(give func(name string, f *os.File)) {
	for i, f := range n.ends {
		give(numbered(fileTap, i), f)
	}
}

// openBackend makes the network side of an interface of f, or of its TAP device
// when that is nil.
func (n *Network) openBackend(f *os.File) (net.Backend, io.Closer, error) {
	switch {
	case n.Tap == "" && f == nil:
		return nil, nil, errors.New("the user-mode network is not there")
	case n.Tap == "":
		s, err := net.NewSocket(f)
		return s, s, err
	case f != nil:
		t, err := net.NewTAP(f)
		return t, t, err
	}
	t, err := net.OpenTAP(n.Tap)
	return t, t, err
}

// guestNetwork is what the agent is told of an interface.
func (n *Network) guestNetwork() (*agentproto.Network, error) {
	out := &agentproto.Network{MAC: n.MAC.String()}
	if n.Tap == "" {
		var c user.Config // the plan of addresses of the Stack to come
		if err := c.Complete(); err != nil {
			return nil, err
		}
		out.Addresses, out.Gateways, out.DNS, out.MTU = []netip.Prefix{c.Guest}, []netip.Addr{c.Gateway}, []netip.Addr{c.DNS}, c.MTU
		return out, nil
	}
	if !n.Address.IsValid() {
		return nil, &workload.Error{Op: "set up " + n.Tap, Err: errors.New("no address for the guest given"),
			Remedy: "Give --network tap=" + n.Tap + ",address=10.0.0.2/24,gateway=10.0.0.1,dns=10.0.0.1."}
	}
	out.Addresses = []netip.Prefix{n.Address}
	if n.Gateway.IsValid() {
		out.Gateways = []netip.Addr{n.Gateway}
	}
	if n.DNS.IsValid() {
		out.DNS = []netip.Addr{n.DNS}
	}
	return out, nil
}
