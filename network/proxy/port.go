package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Port publishes a port of the guest on the host.
type Port struct {
	// IP is the host's address to listen on; the zero Addr means all of them.
	IP netip.Addr
	// Host is the host's port; 0 means that the kernel chooses one.
	Host uint16
	// Guest is the guest's port.
	Guest uint16
	// Proto is "tcp" or "udp"; empty means tcp.
	Proto string
}

// ParsePort reads docker's -p: [[IP:][HOST]:]GUEST[/PROTO], with an IPv6 address
// in brackets.
func ParsePort(s string) (Port, error) {
	p, err := parsePort(s)
	if err != nil {
		return Port{}, fmt.Errorf("publish %q: %w", s, err)
	}
	return p, nil
}

// PublishText has publish listen for a port in the notation of ParsePort.
func PublishText(text string, publish func(Port) (netip.AddrPort, error)) error {
	p, err := ParsePort(text)
	if err == nil {
		_, err = publish(p)
	}
	return err
}

func parsePort(s string) (p Port, err error) {
	s, p.Proto, _ = strings.Cut(s, "/")
	if p.Proto == "" {
		p.Proto = "tcp"
	}
	if p.Proto != "tcp" && p.Proto != "udp" {
		return p, errors.New("the protocol is neither tcp nor udp")
	}
	rest, guest := "", s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		rest, guest = s[:i], s[i+1:]
	}
	if p.Guest, err = portNumber(guest); err != nil || p.Guest == 0 {
		return p, errors.New("the guest's port is not 1 to 65535")
	}
	host := rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host = rest[i+1:]
		ip := strings.TrimSuffix(strings.TrimPrefix(rest[:i], "["), "]")
		if p.IP, err = netip.ParseAddr(ip); err != nil {
			return p, errors.New("not an IP address")
		}
	}
	if host != "" {
		if p.Host, err = portNumber(host); err != nil {
			return p, errors.New("the host's port is not 0 to 65535")
		}
	}
	return p, nil
}

func portNumber(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err
}
