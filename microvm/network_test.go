package microvm

import (
	"bytes"
	"strings"
	"testing"

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
