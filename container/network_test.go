package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/testutil/freeport"
	"github.com/duplex-run/duplex/internal/testutil/netns"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/network/proxy"
)

// workNet shows the network: addresses, default route, names.
func workNet([]string) error {
	list, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			fmt.Println(i.Name, a, "mtu", i.MTU)
		}
	}
	return workCat([]string{"/proc/net/route", "/etc/hosts", "/etc/resolv.conf"})
}

// workDial sends a line to NETWORK ADDRESS and prints what comes back.
func workDial(a []string) error {
	c, err := net.DialTimeout(a[0], a[1], 10*time.Second)
	if err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintln(c, a[2]); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	fmt.Print(line)
	return err
}

// workSay sends a datagram and waits for nothing.
func workSay(a []string) error {
	c, err := net.Dial("udp", a[0])
	if err == nil {
		_, err = io.WriteString(c, a[1])
	}
	return err
}

// workServe answers one line of one peer at NETWORK ADDRESS.
func workServe(a []string) error {
	answer := func(line string, from net.Addr) string {
		host, _, _ := net.SplitHostPort(from.String())
		return "to " + host + ": " + line
	}
	if a[0] == "udp" {
		c, err := net.ListenPacket("udp", a[1])
		if err != nil {
			return err
		}
		fmt.Println("ready")
		buf := make([]byte, 1000)
		n, from, err := c.ReadFrom(buf)
		if err == nil {
			_, err = c.WriteTo([]byte(answer(string(buf[:n]), from)), from)
		}
		if err == nil { // the answer is not to be its last word
			_, _, err = c.ReadFrom(buf)
		}
		return err
	}
	l, err := net.Listen("tcp", a[1])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	c, err := l.Accept()
	if err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil {
		_, err = io.WriteString(c, answer(line, c.RemoteAddr()))
	}
	return errors.Join(err, c.Close())
}

// workLookup prints the addresses of a name.
func workLookup(a []string) error {
	r := net.Resolver{PreferGo: true}
	ips, err := r.LookupNetIP(context.Background(), "ip4", a[0])
	fmt.Println(ips)
	return err
}

// onHost runs the test on a small host, as root or not.
func onHost(t *testing.T) bool {
	if os.Geteuid() != 0 && !netns.Inside() {
		t.Fatal("run this as root: it makes a network namespace for itself, and TestAsUser runs it without root")
	}
	return netns.Run(t)
}

// outsider echoes lines by TCP, and datagrams, at an address that is not loopback.
func outsider(t *testing.T) (tcp, udp string) {
	t.Helper()
	l, err := net.Listen("tcp", netns.Outside+":0")
	must(t, err)
	u, err := net.ListenPacket("udp", netns.Outside+":0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close(); _ = u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer func() { _ = c.Close() }(); _, _ = io.Copy(c, c) }()
		}
	}()
	go func() {
		buf := make([]byte, 1000)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(buf[:n], from)
		}
	}()
	return l.Addr().String(), u.LocalAddr().String()
}

// networks are those that reach the outside.
func networks() []NetworkMode {
	if os.Geteuid() == 0 {
		return []NetworkMode{NetworkUser, NetworkBridge}
	}
	return []NetworkMode{NetworkUser}
}

func runOn(t testing.TB, n Network, spec workload.Spec) string {
	t.Helper()
	var out, errs strings.Builder
	exit, err := Runner{Network: n}.Run(t.Context(), spec, workload.Stdio{Out: &out, Err: &errs}, nil)
	if err != nil || exit.Status() != 0 {
		t.Fatalf("%s: %v: %v, %v: %s%s", n.Mode, spec.Argv, exit, err, &out, &errs)
	}
	return out.String()
}

// What the workload sees, and the way out of it.
func TestNetworkView(t *testing.T) {
	if !onHost(t) {
		return
	}
	tree := newTree(t)
	must(t, os.Symlink("/nowhere/resolv.conf", tree+"/etc/resolv.conf"))
	tcp, udp := outsider(t)
	want := map[NetworkMode][]string{
		NetworkUser:   {"eth0 10.0.2.15/24 mtu 1500", "eth0\t00000000\t0202000A", "nameserver 10.0.2.3\n", "10.0.2.15\tguest-a\n"},
		NetworkBridge: {"eth0 10.83.0.2/16 mtu 1500", "eth0\t00000000\t0100530A", "nameserver 10.83.0.1\n", "10.83.0.2\tguest-a\n"},
	}
	for _, mode := range networks() {
		n := Network{Mode: mode}
		spec := newSpec(tree, "net")
		spec.Hostname = "guest-a"
		out := runOn(t, n, spec)
		for _, w := range append(want[mode], "lo 127.0.0.1/8", "127.0.0.1\tlocalhost\n") {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in %q", mode, w, out)
			}
		}
		if got := runOn(t, n, newSpec(tree, "dial", "tcp", tcp, "over")); got != "over\n" {
			t.Errorf("%s: TCP answers %q", mode, got)
		}
		if got := runOn(t, n, newSpec(tree, "dial", "udp", udp, "over")); got != "over\n" {
			t.Errorf("%s: UDP answers %q", mode, got)
		}
	}
	if got := runOn(t, Network{}, newSpec(tree, "echo", "alone")); got != "alone\n" {
		t.Errorf("none: %q", got)
	}
	if b, err := os.Readlink(tree + "/etc/resolv.conf"); err != nil || b != "/nowhere/resolv.conf" {
		t.Errorf("the image itself was changed: %q, %v", b, err)
	}
	checkNothingLeft(t)
}

// The host's network is the host's, with its names.
func TestNetworkHost(t *testing.T) {
	if !onHost(t) {
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	tree := newTree(t)
	if got := runOn(t, Network{Mode: NetworkHost}, newSpec(tree, "dial", "tcp", l.Addr().String(), "x")); got != "x\n" {
		t.Errorf("the host's loopback answers %q", got)
	}
	hosts, err := os.ReadFile("/etc/hosts")
	must(t, err)
	if out := runOn(t, Network{Mode: NetworkHost}, newSpec(tree, "net")); !strings.Contains(out, netns.Outside) || !strings.Contains(out, string(hosts)) {
		t.Errorf("the view is %q", out)
	}
}

// serving runs serve in a container until it is ready; end waits for its end.
func serving(t *testing.T, n Network, spec workload.Spec) (end func()) {
	t.Helper()
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		exit, err := Runner{Network: n}.Run(t.Context(), spec, workload.Stdio{Out: pw, Err: pw}, nil)
		if err == nil && exit.Status() != 0 {
			err = fmt.Errorf("exit %v", exit)
		}
		_ = pw.CloseWithError(io.EOF)
		done <- err
	}()
	lines := bufio.NewReader(pr)
	if line, err := lines.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%s: %q, %v: %v", n.Mode, line, err, <-done)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return func() {
		t.Helper()
		if err := <-done; err != nil {
			t.Errorf("%s: %v: %v", n.Mode, spec.Argv, err)
		}
	}
}

// A published port leads inside, and the peer there is the gateway.
func TestNetworkPublish(t *testing.T) {
	if !onHost(t) {
		return
	}
	tree := newTree(t)
	gateway := map[NetworkMode]string{NetworkUser: "10.0.2.2", NetworkBridge: "10.83.0.1"}
	for _, mode := range networks() {
		for _, proto := range []string{"tcp", "udp"} {
			port, err := proxy.ParsePort("127.0.0.1:" + freeport.On(t, proto) + ":7/" + proto)
			must(t, err)
			end := serving(t, Network{Mode: mode, Publish: []proxy.Port{port}}, newSpec(tree, "serve", proto, ":7"))
			c, err := net.Dial(proto, fmt.Sprint("127.0.0.1:", port.Host))
			must(t, err)
			must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
			_, err = fmt.Fprintln(c, "hello")
			must(t, err)
			line, err := bufio.NewReader(c).ReadString('\n')
			if want := "to " + gateway[mode] + ": hello\n"; line != want {
				t.Errorf("%s %s: %q, %v; want %q", mode, proto, line, err, want)
			}
			_, _ = fmt.Fprintln(c, "end")
			_ = c.Close()
			end()
		}
	}
	checkNothingLeft(t)
}

// What a workload sends right before it ends arrives, but for what a busy machine
// does not get done in flushTime.
func TestNetworkLastWords(t *testing.T) {
	if !onHost(t) {
		return
	}
	c, err := net.ListenPacket("udp", netns.Outside+":0")
	must(t, err)
	defer func() { _ = c.Close() }()
	tree := newTree(t)
	for _, mode := range networks() {
		came := 0
		for range 5 {
			runOn(t, Network{Mode: mode}, newSpec(tree, "say", c.LocalAddr().String(), "bye"))
			buf := make([]byte, 100)
			must(t, c.SetReadDeadline(time.Now().Add(time.Second)))
			if n, _, _ := c.ReadFrom(buf); string(buf[:n]) == "bye" {
				came++
			}
		}
		if came < 3 {
			t.Errorf("%s: %d of 5 came", mode, came)
		}
	}
}

// Names are answered by the host's resolvers, which here is 127.0.0.1.
func TestNetworkDNS(t *testing.T) {
	if !onHost(t) {
		return
	}
	if os.Geteuid() != 0 {
		return // binding port 53 and /etc/resolv.conf are root's; the stack is the same
	}
	must(t, os.WriteFile("/run/resolv.conf", []byte("nameserver 127.0.0.1\n"), 0o644))
	must(t, unix.Mount("/run/resolv.conf", "/etc/resolv.conf", "", unix.MS_BIND, ""))
	c, err := net.ListenPacket("udp4", "127.0.0.1:53")
	must(t, err)
	defer func() { _ = c.Close() }()
	go func() {
		buf := make([]byte, 1000)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(answerA(buf[:n]), from)
		}
	}()
	tree := newTree(t)
	for _, mode := range networks() {
		if got := runOn(t, Network{Mode: mode}, newSpec(tree, "lookup", "a.name.test")); got != "[192.0.2.77]\n" {
			t.Errorf("%s: %q", mode, got)
		}
	}
}

// answerA answers a query with 192.0.2.77 (RFC 1035, section 4).
func answerA(query []byte) []byte {
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5
	out := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0}, query[12:end]...)
	return append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77)
}

// What cannot be is said, with what to do.
func TestNetworkErrors(t *testing.T) {
	if !onHost(t) {
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	taken := proxy.Port{IP: netip.MustParseAddr("127.0.0.1"), Host: l.Addr().(*net.TCPAddr).AddrPort().Port(), Guest: 80}
	tree := newTree(t)
	for name, c := range map[string]struct {
		n            Network
		text, remedy string
		root, user   bool
	}{
		"port in use":    {Network{Mode: NetworkUser, Publish: []proxy.Port{taken}}, "address already in use", "Choose another port", true, true},
		"bridge, in use": {Network{Mode: NetworkBridge, Publish: []proxy.Port{taken}}, "address already in use", "Choose another port", true, false},
		"no address":     {Network{Mode: NetworkUser, Publish: []proxy.Port{{IP: netip.MustParseAddr("192.0.2.1"), Host: 9, Guest: 80}}}, "cannot assign", "ip address", true, false},
		"low port":       {Network{Mode: NetworkUser, Publish: []proxy.Port{{Host: 80, Guest: 80}}}, "permission denied", "from 1024 on", false, true},
		"no rights":      {Network{Mode: NetworkBridge}, "CAP_NET_ADMIN", "--network user", false, true},
	} {
		if root := os.Geteuid() == 0; root && !c.root || !root && !c.user {
			continue
		}
		_, err := Runner{Network: c.n}.Run(t.Context(), newSpec(tree, "echo"), workload.Stdio{}, nil)
		var e *workload.Error
		if !errors.As(err, &e) || !strings.Contains(e.Err.Error(), c.text) || !strings.Contains(e.Remedy, c.remedy) {
			t.Errorf("%s: %v (%+v)", name, err, e)
		}
	}
	checkNothingLeft(t)
}

// Without a /dev/net/tun that can be opened the remedy names it.
func TestExplainTUN(t *testing.T) {
	for errno, want := range map[unix.Errno]string{unix.EACCES: "chmod 0666 /dev/net/tun", unix.ENOENT: "modprobe tun", unix.ENODEV: "modprobe tun"} {
		failed := handshake.Failed(&handshake.StepError{Step: handshake.StepTUN, Err: errno})
		var e *workload.Error
		if err := (&run{}).explain(failed.Failure()); !errors.As(err, &e) || !strings.Contains(e.Remedy, want) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}
