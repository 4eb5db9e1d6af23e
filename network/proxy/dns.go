package proxy

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// DNSPort is where servers listen.
const DNSPort = 53

const (
	// maxResolvers is what the C library takes from resolv.conf (MAXNS).
	maxResolvers = 3
	// answerTime is how long a resolver has before the next is asked.
	answerTime = 2 * time.Second
	resolvConf = "/etc/resolv.conf"
)

// Resolver answers DNS queries by asking the host's resolvers.
type Resolver struct {
	Tasks *Tasks
	// Fixed are the resolvers; nil means those of the host's /etc/resolv.conf, which
	// is read again for each query.
	Fixed []netip.AddrPort
	// Wait is how long a resolver has before the next is asked; 0 means two seconds.
	Wait time.Duration
}

// List are the resolvers in the order in which they are asked.
func (r *Resolver) List() []netip.AddrPort {
	if r.Fixed != nil {
		return r.Fixed
	}
	conf, _ := os.ReadFile(resolvConf) // none is like an empty one
	return parseResolvers(conf)
}

// parseResolvers reads the nameservers of a resolv.conf(5).
func parseResolvers(conf []byte) (list []netip.AddrPort) {
	for lines := bufio.NewScanner(bytes.NewReader(conf)); lines.Scan() && len(list) < maxResolvers; {
		f := strings.Fields(lines.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			list = append(list, netip.AddrPortFrom(a, DNSPort))
		}
	}
	if list == nil {
		list = append(list, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), DNSPort))
	}
	return list
}

// Serve answers the queries of one flow until there are none under way. A
// resolver takes another port for its next query, so flows have to end soon.
func (r *Resolver) Serve(guest net.Conn) {
	var mu sync.Mutex // count and deadline change together
	count := 0
	queries := func(change int) {
		mu.Lock()
		defer mu.Unlock()
		var deadline time.Time
		if count += change; count == 0 {
			deadline = time.Now().Add(dnsIdle)
		}
		_ = guest.SetReadDeadline(deadline) // never fails
	}
	queries(0)
	running := make(Slots, dnsPerFlow)
	buf := make([]byte, dnsMessage)
	for {
		n, err := guest.Read(buf)
		if err != nil {
			return
		}
		if n < dnsHeader || !running.Take() {
			continue
		}
		query := bytes.Clone(buf[:n])
		queries(1)
		if !r.Tasks.Spawn(func() {
			defer running.Give()
			defer queries(-1)
			if answer := r.Resolve(query); answer != nil {
				_, _ = guest.Write(answer) // lost, as datagrams may be
			}
		}) {
			return
		}
	}
}

const (
	// dnsHeader is the length of a message's header (RFC 1035, 4.1.1).
	dnsHeader = 12
	// dnsMessage bounds a query or an answer in bytes: more than servers send by
	// UDP (RFC 9715). Larger answers come by TCP.
	dnsMessage = 8 << 10
	// dnsPerFlow bounds the queries under way from one port.
	dnsPerFlow = 4
	// dnsIdle is how long a flow waits for another query.
	dnsIdle = 200 * time.Millisecond
)

// Resolve asks the resolvers in turn and returns the first answer, or nil. The
// messages are not looked at, beyond their id.
func (r *Resolver) Resolve(query []byte) []byte {
	for _, server := range r.List() {
		if answer := r.ask(server, query); answer != nil {
			return answer
		}
	}
	return nil
}

func (r *Resolver) ask(server netip.AddrPort, query []byte) []byte {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil || !r.Tasks.Keep(c) {
		return nil
	}
	defer r.Tasks.Forget(c)
	if c.SetDeadline(time.Now().Add(cmp.Or(r.Wait, answerTime))) != nil {
		return nil
	}
	if _, err := c.Write(query); err != nil {
		return nil
	}
	buf := make([]byte, dnsMessage)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil
		}
		if n >= dnsHeader && bytes.Equal(buf[:2], query[:2]) {
			return buf[:n]
		}
	}
}

// ServePackets answers the queries that come to c, of which there are at most as
// many under way as bound has places.
func (r *Resolver) ServePackets(c *net.UDPConn, bound Slots) {
	buf := make([]byte, dnsMessage)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < dnsHeader || !bound.Take() {
			continue
		}
		query := bytes.Clone(buf[:n])
		if !r.Tasks.Spawn(func() {
			defer bound.Give()
			if answer := r.Resolve(query); answer != nil {
				_, _ = c.WriteToUDPAddrPort(answer, from) // lost, as datagrams may be
			}
		}) {
			return
		}
	}
}

// ServeStreams leads the connections that come to l to the first resolver that
// takes one.
func (r *Resolver) ServeStreams(l net.Listener, bound Slots) {
	p := Publisher{Tasks: r.Tasks, TCP: bound}
	p.serveTCP(l, Target{TCP: func(client *net.TCPConn) {
		server := r.dial()
		if server == nil {
			Reset(client)
			return
		}
		if !r.Tasks.Keep(server) {
			return
		}
		defer r.Tasks.Forget(server)
		Relay(server, client, func() {
			Reset(client)
			Reset(server)
		})
	}})
}

func (r *Resolver) dial() *net.TCPConn {
	d := net.Dialer{Timeout: cmp.Or(r.Wait, answerTime)}
	for _, server := range r.List() {
		if c, err := d.DialContext(r.Tasks.Context(), "tcp", server.String()); err == nil {
			return c.(*net.TCPConn)
		}
	}
	return nil
}
