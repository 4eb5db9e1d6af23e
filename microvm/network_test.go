package microvm

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/testutil/freeport"
	"github.com/duplex-run/duplex/internal/workload"
)

// With --network user a workload finds an interface with an address, names of
// servers and its own, and the way out.
func TestGuestUserNetwork(t *testing.T) {
	r := guestOnly(t)
	makeTAP(t, "dummy1", "10.97.0.1/24") // the stack does not lead to loopback
	r.Network = &Network{}
	spec := helperSpec("network", echoServer(t, "10.97.0.1:0"))
	spec.Hostname = "guest-a"
	var out, errs bytes.Buffer
	exit, err := r.Run(t.Context(), spec, workload.Stdio{Out: &out, Err: &errs}, nil)
	if err != nil || exit.Status() != 0 {
		t.Fatalf("%v, %v: %s%s", exit, err, &out, &errs)
	}
	for _, want := range []string{
		"address 10.0.2.15/24 mtu ", "/etc/resolv.conf:\nnameserver 10.0.2.3\n",
		"127.0.0.1\tlocalhost\n", "10.0.2.15\tguest-a\n", "peer: ping\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, &out)
		}
	}
}

// Two machines on the bridge reach each other and the host, their ports are
// published, what goes through the interface is counted, and the last to leave
// leaves nothing.
func TestGuestBridge(t *testing.T) {
	r := guestOnly(t)
	const forward = "/proc/sys/net/ipv4/ip_forward"
	before, err := os.ReadFile(forward)
	if err != nil {
		t.Fatal(err)
	}
	port := freeport.On(t, "tcp")
	server := r
	server.Network = &Network{Bridge: true, Publish: []string{"127.0.0.1:" + port + ":7"}}
	c, end := running(t, server, func(s *workload.Spec) { s.Argv = []string{"/helper", "echo"} })
	client, spec := r, helperSpec("network", "10.83.0.2:7")
	client.Network, spec.Hostname = &Network{Bridge: true}, "guest-b"
	var out, errs bytes.Buffer
	if exit, err := client.Run(t.Context(), spec, workload.Stdio{Out: &out, Err: &errs}, nil); err != nil || exit.Status() != 0 {
		t.Errorf("%v, %v: %s%s", exit, err, &out, &errs)
	}
	for _, want := range []string{"address 10.83.0.3/16 mtu 1500\n", "nameserver 10.83.0.1\n", "10.83.0.3\tguest-b\n", "peer: ping\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, &out)
		}
	}
	checkEcho(t, "10.83.0.2:7")
	checkEcho(t, "127.0.0.1:"+port)
	if s, err := c.Stats(t.Context()); err != nil || s.NetworkIn < 1<<10 || s.NetworkOut < 1<<10 {
		t.Errorf("it carried some KiB: %+v, %v", s, err)
	}
	end()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, "duplex") || strings.HasPrefix(l.Name, "dx") {
			t.Errorf("left: %s", l.Name)
		}
	}
	if after, err := os.ReadFile(forward); err != nil || !bytes.Equal(after, before) {
		t.Errorf("forwarding is %q, was %q, %v", after, before, err)
	}
}

// checkEcho sends a KiB and gets it back.
func checkEcho(t *testing.T, address string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	want, got := bytes.Repeat([]byte("echo"), 256), make([]byte, 1024)
	_, err = c.Write(want)
	if _, rerr := io.ReadFull(c, got); err != nil || rerr != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %v, %q", address, errors.Join(err, rerr), got)
	}
}
