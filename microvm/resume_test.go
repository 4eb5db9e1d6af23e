package microvm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/blk"
	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

// guestIdentity is what testdata/helper says of its machine.
type guestIdentity struct {
	BootID, MachineID, Hostname string
	Random, Canary              []byte
	MACs                        []string
	TimeNs, MonotonicNs         int64
}

// The agent prepares, and begins again when its streams are reset: all that it does
// for a snapshot, without one.
func TestGuestResumes(t *testing.T) {
	r := guestOnly(t)
	socket, err := vsock.New(guestCID)
	must(t, err)
	disk, err := blk.Open(blk.Options{Path: *rootfsFlag, ID: diskID, ReadOnly: true})
	must(t, err)
	marks := make(chan byte, 8)
	var console bytes.Buffer
	vm, err := vmm.New(vmm.Config{
		Kernel: r.Kernel, Initrd: r.Initrd, Cmdline: r.cmdline(), Memory: 256 << 20, CPUs: 1, Console: &console,
		Devices: []virtio.Device{disk, socket}, OnMark: func(b byte, _ int64) { marks <- b },
	})
	must(t, err)
	listeners := listenAll(t, socket)
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := vm.Run(ctx)
		ended <- err
	}()
	defer func() {
		end()
		if err := errors.Join(<-ended, vm.Close()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("console:\n%s", &console)
		}
	}()

	streams := acceptAll(t, listeners)
	control := streams[agentproto.Control]
	expect(t, control, agentproto.Hello)
	must(t, agentproto.Write(control, &agentproto.Message{Type: agentproto.Prepare, Prepare: &agentproto.Preparation{Root: diskID}}))
	expect(t, control, agentproto.Prepared)
	socket.TransportReset()

	streams = acceptAll(t, listeners)
	if hello := expect(t, streams[agentproto.Control], agentproto.Hello); !hello.Restored {
		t.Errorf("the agent did not notice: %+v", hello)
	}
	for _, want := range []byte{agentproto.MarkKernelUp, agentproto.MarkResumed} {
		if got := <-marks; got != want {
			t.Errorf("mark %d, want %d", got, want)
		}
	}
	clone := agentproto.NewClone()
	got := runIdentity(t, streams, clone)
	if got.MachineID != clone.MachineID || got.Hostname != "clone-a" || got.BootID == "" {
		t.Errorf("identity %+v, want machine id %s", got, clone.MachineID)
	}
	if off := time.Since(time.Unix(0, got.TimeNs)); off < -time.Second || off > time.Minute {
		t.Errorf("the guest's clock is off by %v", off)
	}
}

// listenAll listens on the agent's ports.
func listenAll(t *testing.T, d *vsock.Device) map[agentproto.Port]*vsock.Listener {
	t.Helper()
	m := map[agentproto.Port]*vsock.Listener{}
	for _, p := range agentPorts {
		l, err := d.Listen(p.Vsock())
		must(t, err)
		m[p] = l
	}
	return m
}

func acceptAll(t *testing.T, listeners map[agentproto.Port]*vsock.Listener) map[agentproto.Port]net.Conn {
	t.Helper()
	m := map[agentproto.Port]net.Conn{}
	for p, l := range listeners {
		c, err := l.Accept()
		must(t, err)
		m[p] = c
	}
	return m
}

func expect(t *testing.T, control io.Reader, want agentproto.Type) *agentproto.Message {
	t.Helper()
	m, err := agentproto.ReadFromGuest(control)
	if err != nil || m.Type != want {
		t.Fatalf("got %+v, %v, want %s", m, err, want)
	}
	return m
}

// runIdentity runs the helper in a restored machine.
func runIdentity(t *testing.T, streams map[agentproto.Port]net.Conn, clone *agentproto.Clone) guestIdentity {
	t.Helper()
	spec := helperSpec("identity")
	spec.Hostname, spec.Rootfs = "clone-a", workload.Rootfs{}
	control := streams[agentproto.Control]
	start := &agentproto.Start{Spec: spec, Root: diskID, TimeNs: time.Now().UnixNano(), Clone: clone}
	must(t, agentproto.Write(control, &agentproto.Message{Type: agentproto.Run, Start: start}))
	expect(t, control, agentproto.Started)
	var id guestIdentity
	must(t, json.NewDecoder(streams[agentproto.Stdout]).Decode(&id))
	if exit := expect(t, control, agentproto.Exited); exit.Exit.Status() != 0 {
		t.Errorf("exit %+v", exit.Exit)
	}
	return id
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
