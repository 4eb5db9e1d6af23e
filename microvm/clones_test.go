package microvm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
	"github.com/duplex-run/duplex/vmm/state"
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

// clockBound is how far a clone's wall clock may be off: what a start message takes
// from the host to the guest, with room for an emulated machine on a busy host.
const clockBound = 2 * time.Second

// Two clones of one snapshot are two machines.
func TestGuestClones(t *testing.T) {
	r := guestOnly(t)
	memory, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	must(t, err)
	defer func() { _ = memory.Close() }()
	m := saveMachine(t, r, memory)
	a, b := runClone(t, m, memory, "clone-a"), runClone(t, m, memory, "clone-b")
	if a.Hostname != "clone-a" || b.Hostname != "clone-b" {
		t.Errorf("host names %q, %q", a.Hostname, b.Hostname)
	}
	if a.BootID == b.BootID || len(a.BootID) != len("01234567-0123-4123-8123-0123456789ab") {
		t.Errorf("boot ids %q, %q", a.BootID, b.BootID)
	}
	if bytes.Equal(a.Random, b.Random) || len(a.Random) != 32 {
		t.Errorf("random numbers %x, %x", a.Random, b.Random)
	}
	if bytes.Equal(a.Canary, b.Canary) || len(a.Canary) != 16 {
		t.Errorf("random numbers of execve %x, %x", a.Canary, b.Canary)
	}
	if a.MachineID == imageMachineID || a.MachineID == b.MachineID {
		t.Errorf("machine ids %q, %q", a.MachineID, b.MachineID)
	}
}

// cloned is a machine that is like the others of its snapshot.
type cloned struct {
	vm        *vmm.VM
	socket    *vsock.Device
	listeners map[agentproto.Port]*vsock.Listener
	marks     chan byte
	console   bytes.Buffer
	ended     chan error
	end       func()
}

// start makes a machine by build and runs it.
func (c *cloned) start(t *testing.T, build func(vmm.Config) (*vmm.VM, error), onMark func(byte)) {
	t.Helper()
	var err error
	c.socket, err = vsock.New(guestCID)
	must(t, err)
	disk, err := blk.Open(blk.Options{Path: *rootfsFlag, ID: diskID, ReadOnly: true})
	must(t, err)
	c.marks, c.ended = make(chan byte, 8), make(chan error, 1)
	c.vm, err = build(vmm.Config{
		Memory: 256 << 20, CPUs: 1, Console: &c.console, Devices: []virtio.Device{disk, c.socket},
		OnMark: func(b byte, _ int64) {
			onMark(b)
			c.marks <- b
		},
	})
	must(t, err)
	c.listeners = map[agentproto.Port]*vsock.Listener{}
	for _, p := range agentPorts {
		c.listeners[p], err = c.socket.Listen(p.Vsock())
		must(t, err)
	}
	ctx, end := context.WithCancel(t.Context())
	c.end = end
	go func() {
		_, err := c.vm.Run(ctx)
		c.ended <- err
	}()
}

func (c *cloned) stop(t *testing.T) {
	t.Helper()
	c.end()
	if err := errors.Join(<-c.ended, c.vm.Close()); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("console:\n%s", &c.console)
	}
}

// saveMachine boots a machine up to where its agent asks for a snapshot.
func saveMachine(t *testing.T, r Runner, memory *os.File) *state.Machine {
	t.Helper()
	var c cloned
	c.start(t, func(cfg vmm.Config) (*vmm.VM, error) {
		cfg.Kernel, cfg.Initrd, cfg.Cmdline = r.Kernel, r.Initrd, r.cmdline()+" "+agentproto.SnapshotKey+"="+diskID
		return vmm.New(cfg)
	}, func(b byte) {
		if b == agentproto.MarkSnapshot {
			must(t, c.vm.BeginPause())
		}
	})
	defer c.stop(t)
	for mark := byte(0); mark != agentproto.MarkSnapshot; {
		select {
		case mark = <-c.marks:
		case err := <-c.ended:
			t.Fatalf("the machine ended: %v\n%s", err, &c.console)
		}
	}
	must(t, c.vm.Pause(t.Context()))
	m, err := c.vm.Save(memory)
	must(t, err)
	saved, err := state.Decode(m.Encode())
	must(t, err)
	return saved
}

// runClone restores a machine and asks it who it is.
func runClone(t *testing.T, m *state.Machine, memory *os.File, name string) guestIdentity {
	t.Helper()
	var c cloned
	c.start(t, func(cfg vmm.Config) (*vmm.VM, error) { return vmm.Restore(cfg, m, memory) }, func(byte) {})
	defer c.stop(t)
	streams := map[agentproto.Port]net.Conn{}
	for p, l := range c.listeners {
		conn, err := l.Accept()
		must(t, err)
		streams[p] = conn
	}
	if mark := <-c.marks; mark != agentproto.MarkResumed {
		t.Errorf("the first mark is %d, want %d", mark, agentproto.MarkResumed)
	}
	control := streams[agentproto.Control]
	if hello := expect(t, control, agentproto.Hello); !hello.Restored {
		t.Errorf("the agent did not notice: %+v", hello)
	}
	spec := helperSpec("identity")
	spec.Hostname, spec.Rootfs = name, workload.Rootfs{}
	before := time.Now()
	start := &agentproto.Start{Spec: spec, Root: diskID, TimeNs: before.UnixNano(), Clone: agentproto.NewClone()}
	must(t, agentproto.Write(control, &agentproto.Message{Type: agentproto.Run, Start: start}))
	expect(t, control, agentproto.Started)
	var id guestIdentity
	must(t, json.NewDecoder(streams[agentproto.Stdout]).Decode(&id))
	after := time.Now()
	if exit := expect(t, control, agentproto.Exited); exit.Exit.Status() != 0 {
		t.Errorf("exit %+v", exit.Exit)
	}
	if clock := time.Unix(0, id.TimeNs); clock.Before(before.Add(-clockBound)) || clock.After(after.Add(clockBound)) {
		t.Errorf("the clone's clock says %v between %v and %v", clock, before, after)
	}
	if id.MachineID != start.Clone.MachineID {
		t.Errorf("machine id %q, want %q", id.MachineID, start.Clone.MachineID)
	}
	return id
}

func expect(t *testing.T, control io.Reader, want agentproto.Type) *agentproto.Message {
	t.Helper()
	m, err := agentproto.ReadFromGuest(control)
	if err != nil || m.Type != want {
		t.Fatalf("got %+v, %v, want %s", m, err, want)
	}
	return m
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
