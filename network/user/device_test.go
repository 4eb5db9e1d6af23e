package user

import (
	"bytes"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	vnet "github.com/duplex-run/duplex/vmm/virtio/net"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// The device of package net speaks with a Stack as one of a machine does.
func TestDevice(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	f, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	backend, err := vnet.NewSocket(f)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := vnet.New(vnet.Options{Backend: backend, MAC: [6]byte([]byte("\x02guest"))})
	if err != nil {
		t.Fatal(err)
	}
	d := v.Start(t, dev)
	in := d.In(1536)
	d.Ring(0).Add(in)
	d.Kick(0)
	d.Ring(1).Add(d.Out(arpFrame(s.Config().Guest.Addr(), s.Config().Gateway)))
	d.Kick(1)
	_, n := d.Ring(0).Wait()
	got := d.Bytes(in)[:n]
	a := header.ARP(got[vnet.HeaderLen+header.EthernetMinimumSize:])
	if !a.IsValid() || a.Op() != header.ARPReply || !bytes.Equal(a.ProtocolAddressSender(), s.Config().Gateway.AsSlice()) ||
		string(a.HardwareAddressSender()) != string(gatewayMAC) {
		t.Errorf("answer % x", got)
	}
	if got := s.link.offloads.Load(); got != allOffloads|vnet.FeatureHostTSO6|vnet.FeatureGuestTSO6 {
		t.Errorf("the stack knows of offloads %#x", got)
	}
}
