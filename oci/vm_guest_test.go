package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/duplex-run/duplex/initramfs"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/kernel"
	"github.com/duplex-run/duplex/lab"
)

// What the TestGuest tests boot. TestMachine makes it on the host and runs them in
// the lab.
var (
	kernelFlag = flag.String("kernel", "", "guest kernel")
	initrdFlag = flag.String("initrd", "", "initramfs")
)

// guestMain is what of `duplex oci` runs in a guest, where this test binary is
// duplex: in-guest ID, or exec --process FILE ID, after oci --root DIR.
func guestMain(args []string) int {
	o := CreateOptions{Root: args[2], ID: args[len(args)-1], Terminal: relay}
	var status int
	var err error
	if args[3] == GuestCommand {
		status, err = InGuest(context.Background(), o)
	} else {
		status, err = guestExec(o, args[5])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return workload.StatusError
	}
	<-relayed
	return status
}

func guestExec(o CreateOptions, file string) (int, error) {
	c, err := Open(o.Root, o.ID, false)
	if err != nil {
		return 0, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	p := &specs.Process{}
	if err := json.Unmarshal(data, p); err != nil {
		return 0, err
	}
	return c.Exec(context.Background(), ExecOptions{Process: p, Terminal: o.Terminal})
}

// relayed is closed when a terminal has no more to say; at once without one.
var relayed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// relay connects a terminal with the standard streams, as package cli does.
func relay(master *os.File) {
	relayed = make(chan struct{})
	_, _ = term.MakeRaw(0)
	go func() { _, _ = io.Copy(master, os.Stdin) }()
	go func() { _, _ = io.Copy(os.Stdout, master); close(relayed) }()
}

// TestMachine runs the tests named TestGuest in the lab, whose KVM works.
func TestMachine(t *testing.T) {
	if testing.Short() || *kernelFlag != "" {
		t.Skip("boots machines for a minute, or is that machine")
	}
	k, err := kernel.Find("")
	must(t, err)
	vmlinux, err := k.Vmlinux(t.Context())
	must(t, err)
	initrd, _, err := initramfs.Build(t.Context(), initramfs.Options{Kernel: k, Set: initramfs.MicroVM})
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	o := lab.Options{
		Argv:  []string{self, "-test.run=^TestGuest", "-test.timeout=10m", fmt.Sprintf("-test.v=%t", testing.Verbose()), "-kernel=" + vmlinux, "-initrd=" + initrd},
		Carry: []string{vmlinux, initrd}, Cwd: t.TempDir(), Memory: 3 << 30,
	}
	exit, err := lab.Run(t.Context(), o, workload.Stdio{Out: os.Stdout, Err: os.Stderr}, nil)
	if err != nil { // the machine's own failure: see docs/lab.md
		t.Logf("the lab: %v, %v: once more", exit, err)
		exit, err = lab.Run(t.Context(), o, workload.Stdio{Out: os.Stdout, Err: os.Stderr}, nil)
	}
	if err != nil || exit.Status() != 0 {
		t.Errorf("%v, %v", exit, err)
	}
}

// machineBundle is newBundle, of a microVM.
func machineBundle(t *testing.T, args ...string) *bundle {
	t.Helper()
	if *kernelFlag == "" {
		t.Skip("TestMachine runs it in the lab")
	}
	b := newBundle(t, args...)
	b.spec.Annotations = map[string]string{IsolationAnnotation: "vm"}
	b.guest = func(context.Context) (Guest, error) { return Guest{Kernel: *kernelFlag, Initrd: *initrdFlag}, nil }
	return b
}

func TestGuestRun(t *testing.T) {
	b := machineBundle(t, "cat", "/ro/file", "/one", "/proc/self/status", "/sys/fs/cgroup/pids.max")
	share, limit := t.TempDir(), int64(77)
	must(t, os.WriteFile(filepath.Join(share, "file"), []byte("from the host\n"), 0o644))
	b.spec.Mounts = append(b.spec.Mounts,
		specs.Mount{Destination: "/ro", Type: "bind", Source: share, Options: []string{"rbind", "ro"}},
		specs.Mount{Destination: "/one", Type: "bind", Source: filepath.Join(share, "file"), Options: []string{"bind"}})
	b.spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
	log := filepath.Join(t.TempDir(), "hooks")
	self, err := os.Executable()
	must(t, err)
	hook := func(label string) []specs.Hook {
		return []specs.Hook{{Path: self, Args: []string{"work", "hook", log, label}}}
	}
	b.spec.Hooks = &specs.Hooks{CreateRuntime: hook("create"), Poststart: hook("start"), Poststop: hook("stop")}
	text := b.output(t)
	if strings.Count(text, "from the host") != 2 || !strings.Contains(text, "\n77\n") {
		t.Errorf("output %q", text)
	}
	// Capabilities and seccomp are the bundle's, in the guest too.
	for _, line := range []string{"CapEff:\t0000000020000420", "NoNewPrivs:\t1"} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in %q", line, text)
		}
	}
	hooks, err := os.ReadFile(log)
	must(t, err)
	if string(hooks) != "create created\nstart running\nstop stopped\n" {
		t.Errorf("hooks %q", hooks)
	}
}

func TestGuestLifecycle(t *testing.T) {
	b := machineBundle(t, "wait")
	c := b.create(t)
	status := func() specs.ContainerState {
		d, err := Open(b.root, c.ID, false)
		must(t, err)
		c = d
		return d.Status()
	}
	if s := status(); s != specs.StateCreated {
		t.Fatalf("after create: %s", s)
	}
	must(t, c.Start(t.Context()))
	if s := status(); s != specs.StateRunning {
		t.Fatalf("after start: %s", s)
	}
	procs, err := c.GuestProcesses()
	if err != nil || len(procs) != 1 || procs[0].Args != "/bin/work wait" {
		t.Errorf("processes %+v, %v", procs, err)
	}
	err = c.Events(t.Context(), 0, func(e Event) error {
		if e.Data.Pids.Current == 0 {
			t.Errorf("event %+v", e.Data)
		}
		return nil
	})
	must(t, err)
	guestExecs(t, c)
	must(t, c.Pause())
	if s := status(); s != statePaused {
		t.Errorf("after pause: %s", s)
	}
	if _, err := c.Exec(t.Context(), ExecOptions{Process: c.ExecProcess([]string{"/bin/work"})}); err == nil {
		t.Error("exec in a paused container: no error")
	}
	must(t, c.Resume())
	must(t, c.Kill(unix.SIGKILL, false))
	if end, err := waitFor(c.Pid, nil); err != nil || end != 137 {
		t.Errorf("ended with %d, %v", end, err)
	}
	if s := status(); s != specs.StateStopped {
		t.Errorf("after kill: %s", s)
	}
}

// guestExecs is execs, and a program that is left to itself.
func guestExecs(t *testing.T, c *Container) {
	execs(t, c)
	// Detached, the process that stands for it is there until it ends.
	file := filepath.Join(t.TempDir(), "pid")
	_, err := c.Exec(t.Context(), ExecOptions{Process: c.ExecProcess([]string{"/bin/work", "exit", "3"}), Detach: true, PidFile: file})
	must(t, err)
	data, err := os.ReadFile(file)
	must(t, err)
	var pid int
	_, err = fmt.Sscan(string(data), &pid)
	must(t, err)
	if status, err := waitFor(pid, nil); status != 3 || err != nil {
		t.Errorf("detached: %d, %v", status, err)
	}
}

// What is wrong with a bundle shows at create, with a container's statuses.
func TestGuestNoProgram(t *testing.T) {
	b := machineBundle(t)
	b.spec.Process.Args = []string{"/bin/nosuch"}
	b.save(t)
	_, err := Create(t.Context(), b.options(t, nil))
	var werr *workload.Error
	if !errors.As(err, &werr) || werr.Status != workload.StatusNotFound {
		t.Errorf("%v, want status %d", err, workload.StatusNotFound)
	}
	b.nothingLeft(t)
}

// A supervisor that is killed takes its machine along.
func TestGuestKilled(t *testing.T) {
	b := machineBundle(t, "wait")
	c := b.create(t)
	monitors, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.Pid, c.Pid))
	must(t, err)
	c.killInit()
	_, err = waitFor(c.Pid, nil)
	must(t, err)
	if s := c.Status(); s != specs.StateStopped {
		t.Errorf("after kill -9: %s", s)
	}
	for _, pid := range strings.Fields(string(monitors)) {
		eventually(t, "the monitor's end", func() bool { _, err := os.Stat("/proc/" + pid); return os.IsNotExist(err) })
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
	}
}

// A process that takes more memory than the bundle gives it is killed, and the
// machine ends as it does.
func TestGuestMemory(t *testing.T) {
	b := machineBundle(t, "eat")
	limit := int64(48 << 20)
	b.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	status, text, err := b.run(t)
	if err != nil || status != 137 {
		t.Errorf("%d, %v, %q", status, err, text)
	}
}

func TestGuestTerminal(t *testing.T) {
	b := machineBundle(t, "terminal")
	b.spec.Process.Terminal, b.spec.Process.ConsoleSize = true, &specs.Box{Height: 33, Width: 77}
	b.save(t)
	o := b.options(t, nil)
	read := make(chan string, 1)
	o.Terminal = func(master *os.File) {
		_, _ = master.WriteString("typed\n")
		go func() {
			var text bytes.Buffer
			_, _ = io.Copy(&text, master) // EIO at the end
			read <- text.String()
		}()
	}
	status, err := Run(t.Context(), RunOptions{CreateOptions: o})
	text := <-read
	if err != nil || status != 5 || !strings.Contains(text, "33 77\r\n") || !strings.Contains(text, "read typed\r\n") || strings.Count(text, "typed\r\n") != 2 { // and its echo
		t.Errorf("status %d, %v, %q", status, err, text)
	}
	b.nothingLeft(t)
}

// The interface of a network namespace is the guest's, until the machine is gone.
func TestGuestNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:7007")
	must(t, err)
	defer func() { _ = l.Close() }()
	from := make(chan string, 1)
	b := machineBundle(t, "dial", "10.88.7.1:7007")
	name, inside := networkNamespace(t)
	i := slices.IndexFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	b.spec.Linux.Namespaces[i].Path = name
	go func() {
		conn, err := l.Accept()
		if err != nil {
			from <- err.Error()
			return
		}
		_, _ = io.WriteString(conn, "hello from the host\n")
		_ = conn.Close()
		from <- conn.RemoteAddr().String()
	}()
	if text := b.output(t); text != "hello from the host\n" {
		t.Errorf("output %q", text)
	}
	if got := <-from; !strings.HasPrefix(got, "10.88.7.2:") {
		t.Errorf("the guest is %s", got)
	}
	links, err := inside.LinkList()
	must(t, err)
	for _, l := range links {
		qdiscs, err := inside.QdiscList(l)
		must(t, err)
		for _, q := range qdiscs {
			if q.Type() == "ingress" {
				t.Errorf("left on %s: %v", l.Attrs().Name, q)
			}
		}
	}
	if len(links) != 2 { // lo, eth0
		t.Errorf("left interfaces: %v", links)
	}
}

// networkNamespace makes one with 10.88.7.2/24 on eth0, connected to 10.88.7.1
// here, and returns its path and a way to look at it.
func networkNamespace(t *testing.T) (string, *netlink.Handle) {
	t.Helper()
	made, done, gone := make(chan string), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		runtime.LockOSThread()
		if unix.Unshare(unix.CLONE_NEWNET) != nil {
			made <- ""
			return
		}
		made <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		<-done
	}()
	t.Cleanup(func() { close(done); <-gone })
	path := <-made
	f, err := os.Open(path)
	must(t, err)
	defer func() { _ = f.Close() }()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "test-host"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(f.Fd()))}
	must(t, netlink.LinkAdd(veth))
	here, err := netlink.ParseAddr("10.88.7.1/24")
	must(t, err)
	must(t, netlink.AddrAdd(veth, here))
	must(t, netlink.LinkSetUp(veth))
	h, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(h.Close)
	eth0, err := h.LinkByName("eth0")
	must(t, err)
	there, err := netlink.ParseAddr("10.88.7.2/24")
	must(t, err)
	must(t, h.AddrAdd(eth0, there))
	must(t, h.LinkSetUp(eth0))
	return path, h
}
