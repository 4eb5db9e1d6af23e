package microvm

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	vnet "github.com/duplex-run/duplex/vmm/virtio/net"
)

// UserNetwork is the user-mode network of one interface; see package network/user.
type UserNetwork interface {
	// PublishPort makes a port of the host lead to the guest: [IP:]PORT:PORT[/udp].
	PublishPort(text string) error
	// Connect returns the device's end.
	Connect() (*os.File, error)
	Close() error
}

// UserNetworks makes user-mode networks. They are not linked in here: a monitor has
// no use for them, and starts sooner without. A program that runs machines with
// such networks sets it at its start.
var UserNetworks struct {
	New func() (UserNetwork, error)
	// Plan is the addresses of a guest's interface.
	Plan func() (agentproto.Network, error)
}

// BridgePort is an interface on the bridge; see package network/bridge.
type BridgePort interface {
	// PublishPort makes a port of the host lead to the guest: [IP:]PORT:PORT[/udp].
	PublishPort(text string) error
	// Plan is what the guest's interface is set up with.
	Plan() agentproto.Network
	Close() error
}

// BridgeNetwork puts an interface on the bridge and returns its TAP device. As
// UserNetworks it is set by programs that have it.
var BridgeNetwork func() (BridgePort, *os.File, error)

var errNoUserNetworks = errors.New("this program has no user-mode networks")

// networks are the user-mode networks of a machine. They live in the caller's
// process, as they have to reach the host's network; the monitor has one socket
// to each.
type networks struct {
	stacks []UserNetwork
	ends   map[int]*os.File // the devices' ends, by number of the interface
}

// startNetworks makes the user-mode networks and publishes their ports.
func (h *Hardware) startNetworks() (_ *networks, err error) {
	n := &networks{ends: map[int]*os.File{}}
	defer func() {
		if err != nil {
			err = errors.Join(networkError(err), n.close())
		}
	}()
	for i, nic := range h.Networks {
		if nic.Bridge && nic.Tap == "" {
			return n, errors.New("only the runner of a workload joins the bridge")
		}
		if nic.Tap != "" {
			continue
		}
		if UserNetworks.New == nil {
			return n, errNoUserNetworks
		}
		s, err := UserNetworks.New()
		if err != nil {
			return n, err
		}
		n.stacks = append(n.stacks, s)
		if err := nic.publish(s.PublishPort); err != nil {
			return n, err
		}
		end, err := s.Connect()
		if err != nil {
			return n, err
		}
		n.ends[i] = end
	}
	return n, nil
}

// publish has f listen for each of the ports.
func (n *Network) publish(f func(text string) error) error {
	for _, text := range n.Publish {
		if err := f(text); err != nil {
			return err
		}
	}
	return nil
}

// networkError is err as the user sees it.
func networkError(err error) *workload.Error {
	out := &workload.Error{Op: "make the network", Err: err}
	var known interface{ Remedy() string }
	if errors.As(err, &known) {
		out.Remedy = known.Remedy()
	}
	return out
}

// joinBridge puts the workload's network on the bridge, if that was asked for;
// leave undoes it.
func (r *Runner) joinBridge() (leave func() error, err error) {
	if r.Network == nil || !r.Network.Bridge {
		return func() error { return nil }, nil
	}
	n := *r.Network
	if BridgeNetwork == nil {
		return nil, networkError(errors.New("this program has no bridge"))
	}
	port, tap, err := BridgeNetwork()
	if err != nil {
		return nil, networkError(err)
	}
	leave = func() error {
		_ = tap.Close() // the machine took it, or there was none
		return port.Close()
	}
	if err := n.publish(port.PublishPort); err != nil {
		return nil, errors.Join(networkError(err), leave())
	}
	plan := port.Plan()
	n.Tap, n.File, n.Guest, n.Publish = tap.Name(), tap, &plan, nil
	if n.MAC == nil {
		n.MAC, err = net.ParseMAC(plan.MAC)
	}
	r.Network = &n
	return leave, err
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
func (n *Network) openBackend(f *os.File) (vnet.Backend, io.Closer, error) {
	if f == nil {
		f = n.File
	}
	switch {
	case n.Tap == "" && f == nil:
		return nil, nil, errors.New("the user-mode network is not there")
	case n.Tap == "":
		s, err := vnet.NewSocket(f)
		return s, s, err
	case f != nil:
		t, err := vnet.NewTAP(f)
		return t, t, err
	}
	t, err := vnet.OpenTAP(n.Tap)
	return t, t, err
}

// guestNetwork is what the agent is told of an interface.
func (n *Network) guestNetwork() (*agentproto.Network, error) {
	out := &agentproto.Network{}
	if n.Tap == "" {
		if UserNetworks.Plan == nil {
			return nil, errNoUserNetworks
		}
		var err error
		if *out, err = UserNetworks.Plan(); err != nil {
			return nil, err
		}
	}
	out.MAC = n.MAC.String()
	if n.Tap == "" {
		return out, nil
	}
	if n.Guest != nil {
		told := *n.Guest
		told.MAC = n.MAC.String()
		return &told, nil
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
