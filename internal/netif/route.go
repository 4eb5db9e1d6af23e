package netif

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// routeLink is a NETLINK_ROUTE socket (rtnetlink(7)). A few messages by hand keep
// a library of a megabyte out of the initramfs and of the container's init.
type routeLink struct {
	fd  int
	seq uint32
}

func openRoute() (*routeLink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &routeLink{fd: fd}, nil
}

func (l *routeLink) close() { _ = unix.Close(l.fd) }

// configure sets addresses, MTU and state, and then the routes, which need them.
func (l *routeLink) configure(index uint32, n *Config) error {
	for _, a := range n.Addresses {
		if err := l.do(unix.RTM_NEWADDR, addressBody(index, a)); err != nil {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	if err := l.do(unix.RTM_NEWLINK, linkBody(index, n.MTU)); err != nil {
		return fmt.Errorf("bring it up with MTU %d: %w", n.MTU, err)
	}
	for _, g := range n.Gateways {
		if err := l.do(unix.RTM_NEWROUTE, routeBody(index, g, onLink(g, n))); err != nil {
			return fmt.Errorf("add default route by %s: %w", g, err)
		}
	}
	return nil
}

// do sends one request and waits for its acknowledgement.
func (l *routeLink) do(kind uint16, body []byte) error {
	l.seq++
	if err := unix.Sendto(l.fd, request(kind, l.seq, body), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(l.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if done, err := acknowledged(buf[:n], l.seq); done {
			return err
		}
	}
}

var le = binary.LittleEndian

// request is a struct nlmsghdr with its body.
func request(kind uint16, seq uint32, body []byte) []byte {
	flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_ACK)
	if kind != unix.RTM_NEWLINK { // which would make an interface
		flags |= unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	p := le.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	p = le.AppendUint16(p, kind)
	p = le.AppendUint16(p, flags)
	p = le.AppendUint32(p, seq)
	p = le.AppendUint32(p, 0)
	return append(p, body...)
}

var errShort = errors.New("short answer of rtnetlink")

// acknowledged says whether p is the struct nlmsgerr for a request, and what the
// kernel made of it.
func acknowledged(p []byte, seq uint32) (done bool, err error) {
	if len(p) < unix.SizeofNlMsghdr+4 {
		return true, errShort
	}
	if le.Uint16(p[4:]) != unix.NLMSG_ERROR || le.Uint32(p[8:]) != seq {
		return false, nil
	}
	if errno := -int32(le.Uint32(p[unix.SizeofNlMsghdr:])); errno != 0 {
		return true, unix.Errno(errno)
	}
	return true, nil
}

// attribute appends a struct rtattr.
func attribute(p []byte, kind uint16, data []byte) []byte {
	p = le.AppendUint16(p, uint16(unix.SizeofRtAttr+len(data)))
	p = le.AppendUint16(p, kind)
	p = append(p, data...)
	for len(p)%4 != 0 {
		p = append(p, 0)
	}
	return p
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// linkBody is a struct ifinfomsg that brings an interface up.
func linkBody(index uint32, mtu int) []byte {
	p := []byte{unix.AF_UNSPEC, 0, 0, 0}
	p = le.AppendUint32(p, index)
	p = le.AppendUint32(p, unix.IFF_UP) // flags
	p = le.AppendUint32(p, unix.IFF_UP) // which of them
	if mtu != 0 {
		p = attribute(p, unix.IFLA_MTU, le.AppendUint32(nil, uint32(mtu)))
	}
	return p
}

// addressBody is a struct ifaddrmsg. An IPv6 address is used at once, without a
// second of asking whether anybody else has it.
func addressBody(index uint32, a netip.Prefix) []byte {
	var flags byte
	if a.Addr().Is6() {
		flags = unix.IFA_F_NODAD
	}
	p := []byte{family(a.Addr()), byte(a.Bits()), flags, unix.RT_SCOPE_UNIVERSE}
	p = le.AppendUint32(p, index)
	p = attribute(p, unix.IFA_LOCAL, a.Addr().AsSlice())
	p = attribute(p, unix.IFA_ADDRESS, a.Addr().AsSlice())
	if a.Addr().Is4() && a.Bits() < 31 {
		p = attribute(p, unix.IFA_BROADCAST, broadcast(a))
	}
	return p
}

// broadcast is the last address of an IPv4 network.
func broadcast(a netip.Prefix) []byte {
	ip := a.Addr().As4()
	return binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(ip[:])|(1<<(32-a.Bits())-1))
}

// routeBody is a struct rtmsg for a default route.
func routeBody(index uint32, gateway netip.Addr, onLink bool) []byte {
	p := []byte{family(gateway), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST}
	var flags uint32
	if onLink {
		flags = unix.RTNH_F_ONLINK
	}
	p = le.AppendUint32(p, flags)
	p = attribute(p, unix.RTA_GATEWAY, gateway.AsSlice())
	return attribute(p, unix.RTA_OIF, le.AppendUint32(nil, index))
}
