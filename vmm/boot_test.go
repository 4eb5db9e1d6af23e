package vmm

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/duplex-run/duplex/vmm/probe"
)

// The tests here boot a stock kernel, with this test binary as its init:
//
//	duplex lab run -- ./vmm.test -kernel vmlinuz -vmlinux vmlinux
var (
	kernelFlag  = flag.String("kernel", "", "bzImage to boot")
	vmlinuxFlag = flag.String("vmlinux", "", "uncompressed kernel to boot")
)

func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		guestInit()
	}
	os.Exit(m.Run())
}

// probed probes this host's KVM once.
var probed = sync.OnceValues(probe.Run)

// stockKernel returns the path of a kernel to boot, or skips where this host
// cannot boot it: `make test` runs these tests in the lab, where that fails.
func stockKernel(t *testing.T, path string) string {
	t.Helper()
	report, err := probed()
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case inLab() && !report.BootsStockKernel:
		t.Fatalf("the lab: %s", report.Why)
	case inLab() && path == "":
		t.Fatal("no -kernel or -vmlinux given")
	case !report.BootsStockKernel:
		t.Skipf("%s; `make test` runs this test in the lab", report.Why)
	case path == "":
		t.Skip("no -kernel or -vmlinux given; `make test` gives them")
	}
	return path
}

// initramfs makes an initramfs whose init is this test binary.
func initramfs(t *testing.T) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for i, f := range []struct {
		name string
		mode uint32
		data []byte
	}{
		{"dev", 0o40755, nil}, {"proc", 0o40755, nil}, {"sys", 0o40755, nil},
		{"init", 0o100755, self}, {"TRAILER!!!", 0, nil},
	} {
		// Documentation/driver-api/early-userspace/buffer-format.rst
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			i+1, f.mode, 0, 0, 1, 0, len(f.data), 0, 0, 0, 0, len(f.name)+1, 0, f.name)
		b.Write(make([]byte, -b.Len()&3))
		b.Write(f.data)
		b.Write(make([]byte, -b.Len()&3))
	}
	path := filepath.Join(t.TempDir(), "initramfs.cpio")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// bootLinux boots kernel until it ends or, if until is not "", has printed that.
func bootLinux(t *testing.T, kernel, action, until string, cpus int) (Exit, string, *VM) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	console := &watcher{until: until, seen: cancel}
	v, err := New(Config{
		Kernel: kernel, Initrd: initramfs(t), Memory: 256 << 20, CPUs: cpus, Console: console,
		Cmdline: DefaultCmdline + " duplextest=" + action,
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	exit, err := v.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %v in %v, %+v", action, exit.Reason, time.Since(began), v.Stats())
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	return exit, console.String(), v
}

// watcher calls seen when a text has gone by.
type watcher struct {
	syncBuffer
	until string
	seen  func()
}

func (w *watcher) Write(p []byte) (int, error) {
	n, err := w.syncBuffer.Write(p)
	if w.until != "" && strings.Contains(w.String(), w.until) {
		w.seen()
	}
	return n, err
}

// TestBoot64GiB boots in far more memory than the host has: what the kernel
// touches is its own description of the pages, 1/64 of the memory.
func TestBoot64GiB(t *testing.T) {
	kernel := stockKernel(t, *vmlinuxFlag)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	console := &watcher{}
	v, err := New(Config{
		Kernel: kernel, Initrd: initramfs(t), Memory: 64 << 30, CPUs: 1, Console: console,
		Cmdline: DefaultCmdline + " duplextest=poweroff",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	exit, err := v.Run(ctx)
	if err != nil || exit.Reason != PowerOff {
		t.Fatalf("ended by %v, %v; console:\n%s", exit, err, console.String())
	}
	t.Logf("%d MiB resident", v.Stats().Resident>>20)
	if n := v.Stats().Resident; n > 2<<30 {
		t.Errorf("%d bytes resident", n)
	}
}

func TestBootLinux(t *testing.T) {
	for _, c := range []struct {
		action, until string
		vmlinux       bool
		cpus          int
		reason        Reason
		console       []string
	}{
		{action: "poweroff", reason: PowerOff, console: []string{"guest: up", "clocksource kvm-clock", "svm false", "uart 4-edge"}},
		{action: "poweroff", vmlinux: true, reason: PowerOff, console: []string{"guest: up", "clocksource kvm-clock"}},
		{action: "poweroff", vmlinux: true, cpus: 2, reason: PowerOff, console: []string{"guest: up", "processors 2, cores 2, packages 1"}},
		{action: "poweroff", vmlinux: true, cpus: 32, reason: PowerOff, console: []string{"guest: up", "processors 32, cores 32, packages 1"}},
		{action: "reboot", vmlinux: true, reason: Reset, console: []string{"guest: up"}},
		{action: "triple reboot=triple", vmlinux: true, reason: TripleFault, console: []string{"guest: up"}},
		{action: "panic", vmlinux: true, reason: Reset, console: []string{"guest: up", "Kernel panic - not syncing: sysrq triggered crash"}},
		{action: "spin", vmlinux: true, until: "guest: up", reason: Canceled},
	} {
		path := *kernelFlag
		if c.vmlinux {
			path = *vmlinuxFlag
		}
		cpus := max(1, c.cpus)
		t.Run(fmt.Sprintf("%s/vmlinux=%v/cpus=%d", strings.Fields(c.action)[0], c.vmlinux, cpus), func(t *testing.T) {
			exit, console, v := bootLinux(t, stockKernel(t, path), c.action, c.until, cpus)
			if exit.Reason != c.reason {
				t.Errorf("ended by %v, want %v", exit, c.reason)
			}
			for _, want := range c.console {
				if !strings.Contains(console, want) {
					t.Errorf("console lacks %q", want)
				}
			}
			if n := v.Stats().Resident; n < 16<<20 || n > 256<<20 {
				t.Errorf("resident memory: %d bytes", n)
			}
			if t.Failed() {
				t.Logf("console:\n%s", console)
			}
		})
	}
}
