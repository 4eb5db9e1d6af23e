package bridge

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/netif"
	"github.com/duplex-run/duplex/internal/testutil/netns"
	"github.com/duplex-run/duplex/network/bridge/state"
)

// envJoin makes the test binary a run that joins and stays.
const envJoin = "DUPLEX_TEST_JOIN"

func TestMain(m *testing.M) {
	if os.Getenv(envJoin) != "" {
		if _, _, err := JoinTAP(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("joined")
		select {}
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// member is a thread with a network namespace of its own.
type member struct {
	t    testing.TB
	tid  int
	work chan func()
}

func newMember(t testing.TB) *member {
	m := &member{t: t, work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		m.tid = unix.Gettid()
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range m.work {
			f()
		}
	}()
	must(t, <-ready)
	t.Cleanup(func() { close(m.work) })
	return m
}

// do runs f in the member's namespace.
func (m *member) do(f func() error) error {
	done := make(chan error)
	m.work <- func() { done <- f() }
	return <-done
}

// join puts the member on the bridge.
func (m *member) join() *Port {
	m.t.Helper()
	p, err := Join(m.tid, "eth0")
	must(m.t, err)
	must(m.t, m.do(func() error { return configure("eth0", &p.Config) }))
	return p
}

func configure(name string, c *netif.Config) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netif.Configure(link.Attrs().Index, c)
}

// listen answers each connection in the member's namespace with the peer's address.
func (m *member) listen(address string) string {
	m.t.Helper()
	var l net.Listener
	must(m.t, m.do(func() (err error) { l, err = net.Listen("tcp", address); return err }))
	m.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String()+"\n")
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

// dial returns what the server at address says.
func (m *member) dial(address string, wait time.Duration) (line string, err error) {
	var c net.Conn
	// A TCP address needs no name, so the socket is made on this thread.
	if err := m.do(func() (err error) { c, err = net.DialTimeout("tcp", address, wait); return err }); err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	line, err = bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// beyond is a host behind the host: uplink 198.51.100.1, its own 198.51.100.2, with
// a route back to the bridge.
func beyond(t testing.TB) *member {
	t.Helper()
	m := newMember(t)
	veth := netlink.NewVeth(netlink.NewLinkAttrs())
	veth.Name, veth.PeerName, veth.PeerNamespace = "uplink", "eth0", netlink.NsPid(m.tid)
	must(t, netlink.LinkAdd(veth))
	must(t, configure("uplink", &netif.Config{Addresses: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/24")}}))
	must(t, m.do(func() error {
		return configure("eth0", &netif.Config{Addresses: []netip.Prefix{netip.MustParsePrefix("198.51.100.2/24")}, Gateways: []netip.Addr{netip.MustParseAddr("198.51.100.1")}})
	}))
	return m
}

// nothingLeft looks for what the bridge may leave on the host.
func nothingLeft(t testing.TB, forward string) {
	t.Helper()
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		if name := l.Attrs().Name; name == Name || strings.HasPrefix(name, state.LinkPrefix) {
			t.Errorf("left: interface %s", name)
		}
	}
	c, err := nftables.New()
	must(t, err)
	if tables, err := c.ListTables(); err != nil || len(tables) > 0 {
		t.Errorf("left: %d tables, %v", len(tables), err)
	}
	if got := forwarding(t); got != forward {
		t.Errorf("ip_forward is %q, was %q", got, forward)
	}
	if _, err := os.Stat(state.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", state.Dir, err)
	}
}

func forwarding(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(forwardFile)
	must(t, err)
	return strings.TrimSpace(string(b))
}

// Members reach each other and, masqueraded, what is beyond; that does not reach
// them.
func TestBridge(t *testing.T) {
	if !netns.Run(t) {
		return
	}
	must(t, os.WriteFile(forwardFile, []byte("0"), 0))
	far := beyond(t)
	a, b := newMember(t), newMember(t)
	pa, pb := a.join(), b.join()
	ipA, ipB := pa.Config.Addresses[0].Addr(), pb.Config.Addresses[0].Addr()
	if ipA.String() != "10.83.0.2" || ipB.String() != "10.83.0.3" {
		t.Errorf("addresses %v, %v", ipA, ipB)
	}
	serverB := b.listen(ipB.String() + ":0")
	for name, c := range map[string]struct {
		from *member
		to   string
		want string
	}{
		"to each other":      {a, serverB, ipA.String()},
		"to what is beyond":  {a, far.listen("198.51.100.2:0"), "198.51.100.1"},
		"to another service": {b, far.listen("198.51.100.2:0"), "198.51.100.1"},
	} {
		if got, err := c.from.dial(c.to, 10*time.Second); got != c.want {
			t.Errorf("%s: the peer is %q, %v; want %q", name, got, err, c.want)
		}
	}
	if got, err := far.dial(serverB, 300*time.Millisecond); err == nil {
		t.Errorf("from beyond a member is reached, as %q", got)
	}
	must(t, pa.Close())
	if got, err := b.dial(far.listen("198.51.100.2:0"), 10*time.Second); got != "198.51.100.1" {
		t.Errorf("after the other left: %q, %v", got, err)
	}
	must(t, pb.Close())
	nothingLeft(t, "0")
}

// Where forwarding was on it stays on.
func TestForwardingStays(t *testing.T) {
	if !netns.Run(t) {
		return
	}
	must(t, os.WriteFile(forwardFile, []byte("1"), 0))
	p := newMember(t).join()
	must(t, p.Close())
	nothingLeft(t, "1")
}

// Runs that come and go at once never share an address.
func TestAtOnce(t *testing.T) {
	if !netns.Run(t) {
		return
	}
	before := forwarding(t)
	var mu sync.Mutex
	live := map[netip.Prefix]bool{}
	var all sync.WaitGroup
	for range 8 {
		m := newMember(t)
		all.Go(func() {
			for range 5 {
				p, err := Join(m.tid, "eth0")
				if err != nil {
					t.Error(err)
					return
				}
				a := p.Config.Addresses[0]
				mu.Lock()
				if live[a] {
					t.Errorf("%s was given twice", a)
				}
				live[a] = true
				mu.Unlock()
				mu.Lock()
				delete(live, a)
				mu.Unlock()
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	nothingLeft(t, before)
}

// What a run that was killed leaves goes with the next Sweep, and what a live one
// has stays.
func TestSweep(t *testing.T) {
	if !netns.Run(t) {
		return
	}
	before := forwarding(t)
	start := func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), envJoin+"=1")
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "joined\n" {
			t.Fatalf("%q, %v", line, err)
		}
		return cmd
	}
	end := func(cmd *exec.Cmd) {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
	}
	first, second := start(), start()
	end(first)
	must(t, Sweep())
	if _, err := netlink.LinkByName(linkName(netip.MustParseAddr("10.83.0.3"))); err != nil {
		t.Errorf("the live one's interface: %v", err)
	}
	if names, err := state.Claims(); err != nil || len(names) != 1 {
		t.Errorf("claims %v, %v", names, err)
	}
	third := start() // takes the place of the first
	if _, err := netlink.LinkByName(linkName(netip.MustParseAddr("10.83.0.2"))); err != nil {
		t.Errorf("the third's interface: %v", err)
	}
	end(second)
	end(third)
	must(t, Sweep())
	nothingLeft(t, before)
	must(t, Sweep()) // of nothing
}

// What was half made is completed.
func TestHalfMade(t *testing.T) {
	if !netns.Run(t) {
		return
	}
	before := forwarding(t)
	_, err := makeBridge()
	must(t, err)
	m := newMember(t)
	p := m.join()
	if p.Config.Addresses[0].String() != "10.83.0.2/16" {
		t.Errorf("address %v", p.Config.Addresses)
	}
	must(t, p.Close())
	nothingLeft(t, before)
}

func TestChoose(t *testing.T) {
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	for name, c := range map[string]struct {
		used []netip.Prefix
		want string
	}{
		"nothing":           {nil, "10.83.0.0/16"},
		"a default route":   {prefixes("0.0.0.0/0"), "10.83.0.0/16"},
		"others":            {prefixes("172.17.0.0/16", "192.168.0.0/24"), "10.83.0.0/16"},
		"a part":            {prefixes("10.83.4.0/24"), "10.84.0.0/16"},
		"podman's is no go": {prefixes("10.80.0.0/13"), "10.89.0.0/16"},
		"all":               {prefixes("10.0.0.0/8"), ""},
	} {
		got, err := choose(c.used)
		if (err == nil) != (c.want != "") || err == nil && got.String() != c.want {
			t.Errorf("%s: %v, %v; want %s", name, got, err, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	a := nth(netip.MustParsePrefix("10.83.0.0/16"), 258)
	if a.String() != "10.83.1.2" || linkName(a) != "dx0a530102" || hardwareAddr(a).String() != "02:64:0a:53:01:02" {
		t.Errorf("%v is %s with %v", a, linkName(a), hardwareAddr(a))
	}
}
