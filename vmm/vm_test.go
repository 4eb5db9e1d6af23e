package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/boot"
	"github.com/duplex-run/duplex/vmm/virtio"
)

func TestEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		guest  program
		reason Reason
	}{
		{"sleep register", program{}.powerOff(), PowerOff},
		{"reset line", program{}.out(portI8042Command, i8042Reset).spin(), Reset},
		{"other i8042 commands and sleep types first",
			program{}.out(portI8042Command, 0xaa, 0x20).out(portSleepControl, 0x20, 0x14, 0x30).
				out(portI8042Data, 0xfe).powerOff(), PowerOff},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newTiny(t, c.guest, nil)
			if exit := run(t, v); exit.Reason != c.reason {
				t.Errorf("ended by %v, want %v", exit, c.reason)
			}
			if _, err := v.Run(context.Background()); !errors.Is(err, ErrRan) {
				t.Errorf("second Run: %v", err)
			}
		})
	}
}

// TestFault runs an undefined instruction with no interrupt table. Hardware
// shuts the CPU down, and AMD's KVM then resets it, so that it cannot be said
// where; a KVM that interprets may give up before that.
func TestFault(t *testing.T) {
	exit := run(t, newTiny(t, program{0x0f, 0x0b}, nil))
	if exit.Reason != TripleFault && (inLab() || exit.Reason != InternalError) {
		t.Errorf("ended by %v", exit)
	}
	if exit.Detail != "" && !strings.Contains(exit.Detail, "RIP 0x100000 ") {
		t.Errorf("detail %q does not say where", exit.Detail)
	}
}

func TestConsole(t *testing.T) {
	var console syncBuffer
	text := "hello\r\nfrom a guest, no newline at the end"
	guest := program{}.out(portSerial, []byte(text)...).powerOff()
	v := newTiny(t, guest, func(c *Config) { c.Console = &console })
	run(t, v)
	if console.String() != text {
		t.Errorf("console: %q", console.String())
	}
	s := v.Stats()
	if s.Ports[portSerial] != uint64(len(text)) || s.Ports[portSleepControl] != 1 || s.Exits["io"] != uint64(len(text))+1 {
		t.Errorf("stats: %+v", s)
	}
	if s.Resident == 0 || s.Resident > 4<<20 {
		t.Errorf("resident memory: %d bytes", s.Resident)
	}
}

func TestMarksAndEvents(t *testing.T) {
	var seen []string
	last := now()
	note := func(what string, ns int64) {
		if ns < last || ns > now() {
			t.Errorf("%s: stamp %d is not between %d and now", what, ns, last)
		}
		last = ns
		seen = append(seen, what)
	}
	guest := program{}.out(portMarks, 1, 2, 255).powerOff()
	run(t, newTiny(t, guest, func(c *Config) {
		c.OnMark = func(v byte, ns int64) { note(fmt.Sprint("mark ", v), ns) }
		c.OnEvent = func(e Event, ns int64) { note(fmt.Sprint("event ", int(e)), ns) }
	}))
	want := []string{"event 0", "event 1", "event 2", "mark 1", "mark 2", "mark 255"}
	if !slices.Equal(seen, want) {
		t.Errorf("saw %q, want %q", seen, want)
	}
}

// TestStringIO makes one exit for many bytes: mov $tinyBase,%esi; mov $4,%ecx;
// mov $0x3f8,%dx; rep outsb
func TestStringIO(t *testing.T) {
	var console syncBuffer
	guest := program{0xbe, 0, 0, 0x10, 0, 0xb9, 4, 0, 0, 0, 0x66, 0xba, 0xf8, 0x03, 0xf3, 0x6e}.powerOff()
	run(t, newTiny(t, guest, func(c *Config) { c.Console = &console }))
	if console.String() != "\xbe\x00\x00\x10" {
		t.Errorf("console: %q", console.String())
	}
}

// TestUnclaimed accesses ports and memory where nothing is: reads are all ones.
func TestUnclaimed(t *testing.T) {
	var console syncBuffer
	in := program{0x66, 0xba, 0xf8, 0x0c, 0xed} // mov $0xcf8,%dx; in %dx,%eax
	guest := in.print().load(0xe0000000).print().store(0xe0000000, 1).out(0x80, 1).powerOff()
	v := newTiny(t, guest, func(c *Config) { c.Console = &console })
	if exit := run(t, v); exit.Reason != PowerOff {
		t.Errorf("ended by %v", exit)
	}
	if want := strings.Repeat("\xff", 8); console.String() != want {
		t.Errorf("read %q, want %q", console.String(), want)
	}
}

// testDevice is a virtio device that notes its kicks.
type testDevice struct {
	virtio.Engine
	kicks  chan int
	closed int
}

func (d *testDevice) Type() uint32               { return virtio.TypeEntropy }
func (d *testDevice) Features() uint64           { return 0 }
func (d *testDevice) QueueSizes() []uint16       { return []uint16{8, 8} }
func (d *testDevice) WriteConfig(uint64, []byte) {}
func (d *testDevice) Kick(q int)                 { d.kicks <- q }
func (d *testDevice) Reset()                     {}
func (d *testDevice) Close() error               { d.closed++; return nil }

func (d *testDevice) Activate(virtio.Activation) error { return nil }

func (d *testDevice) ReadConfig(offset uint64, p []byte) {
	virtio.ReadConfigSpace([]byte("conf"), offset, p)
}

// TestVirtioWiring reads a device's registers and kicks its queues.
func TestVirtioWiring(t *testing.T) {
	var console syncBuffer
	first, second := &testDevice{kicks: make(chan int, 8)}, &testDevice{kicks: make(chan int, 8)}
	const dev0, dev1, notify = mmioBase, mmioBase + mmioSize, 0x50
	guest := program{}.load(dev0).print().load(dev1+0x100).print().
		store(dev1+notify, 1).store(dev0+notify, 0).powerOff()
	v := newTiny(t, guest, func(c *Config) {
		c.Console, c.Devices = &console, []virtio.Device{first, second}
	})
	run(t, v)
	if console.String() != "virtconf" {
		t.Errorf("magic and config: %q", console.String())
	}
	for i, want := range map[*testDevice]int{first: 0, second: 1} {
		select {
		case q := <-i.kicks:
			if q != want {
				t.Errorf("kick of queue %d, want %d", q, want)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("no kick of queue %d", want)
		}
	}
	if n := v.Stats().Exits["mmio"]; n != 2 {
		t.Errorf("%d mmio exits, want 2: notifications go by ioeventfd", n)
	}
	if err := errors.Join(v.Close(), v.Close()); err != nil || first.closed != 1 || second.closed != 1 {
		t.Errorf("close: %v, devices closed %d and %d times", err, first.closed, second.closed)
	}
}

// TestCancel stops guests that do not stop by themselves.
func TestCancel(t *testing.T) {
	blocked := &blockingWriter{release: make(chan struct{})}
	defer close(blocked.release)
	for _, c := range []struct {
		name    string
		guest   program
		console io.Writer
	}{
		{"spinning", program{}.out(portMarks, 1).spin(), nil},
		{"halted", program{}.out(portMarks, 1).then(0xfa, 0xf4), nil}, // cli; hlt
		{"flooding the console", program{}.out(portMarks, 1).out(portSerial, 'x', '\n').then(0xee, 0xeb, 0xfd), io.Discard},
		{"flooding a console that blocks", program{}.out(portMarks, 1).out(portSerial, 'x', '\n').then(0xee, 0xeb, 0xfd), blocked},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			running := make(chan struct{})
			v := newTiny(t, c.guest, func(cfg *Config) {
				cfg.Console = c.console
				cfg.OnMark = func(byte, int64) { close(running) }
			})
			var canceled time.Time
			go func() {
				<-running
				canceled = time.Now()
				cancel()
			}()
			exit, err := v.Run(ctx)
			took := time.Since(canceled)
			if err != nil || exit.Reason != Canceled {
				t.Errorf("ended by %v, %v", exit, err)
			}
			if took > 100*time.Millisecond {
				t.Errorf("took %v after the cancel", took)
			}
		})
	}
}

type blockingWriter struct{ release chan struct{} }

func (b *blockingWriter) Write(p []byte) (int, error) {
	<-b.release
	return len(p), nil
}

// TestCancelBefore: a context that has ended before Run.
func TestCancelBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	v := newTiny(t, program{}.spin(), nil)
	if exit, err := v.Run(ctx); err != nil || exit.Reason != Canceled {
		t.Errorf("ended by %v, %v", exit, err)
	}
}

// TestNewRefuses checks that a bad configuration is an error that says what is
// wrong, whatever the state of /dev/kvm.
func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := program{}.powerOff().vmlinux(t)
	text := write("text", strings.Repeat("no kernel\n", 1000))
	big := write("big", "")
	if err := os.Truncate(big, 3<<20); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		cfg  Config
		want error
		text string
	}{
		{"no kernel file", Config{Kernel: filepath.Join(dir, "absent"), Memory: 4 << 20, CPUs: 1}, os.ErrNotExist, "absent"},
		{"a directory", Config{Kernel: dir, Memory: 4 << 20, CPUs: 1}, nil, "not a regular file"},
		{"a text file", Config{Kernel: text, Memory: 4 << 20, CPUs: 1}, boot.ErrNotKernel, text},
		{"an empty file", Config{Kernel: write("empty", ""), Memory: 4 << 20, CPUs: 1}, boot.ErrNotKernel, "too short"},
		{"no initrd file", Config{Kernel: good, Initrd: filepath.Join(dir, "absent"), Memory: 4 << 20, CPUs: 1}, os.ErrNotExist, "initrd"},
		{"initrd larger than memory", Config{Kernel: good, Initrd: big, Memory: 3 << 20, CPUs: 1}, boot.ErrMemoryTooSmall, "initrd of 3.0 MiB"},
		{"memory of 1 MB", Config{Kernel: good, Memory: 1 << 20, CPUs: 1}, boot.ErrMemoryTooSmall, "the guest has 1.0 MiB"},
		{"no memory", Config{Kernel: good, CPUs: 1}, ErrConfig, "memory"},
		{"odd memory", Config{Kernel: good, Memory: 4<<20 + 1, CPUs: 1}, ErrConfig, "4096"},
		{"too much memory", Config{Kernel: good, Memory: 1 << 50, CPUs: 1}, ErrConfig, "memory"},
		{"no CPUs", Config{Kernel: good, Memory: 4 << 20}, ErrConfig, "CPUs"},
		{"256 CPUs", Config{Kernel: good, Memory: 4 << 20, CPUs: 256}, ErrConfig, "256 CPUs"},
		{"a limit above the CPUs", Config{Kernel: good, Memory: 4 << 20, CPUs: 1, CPULimit: 1.5}, ErrConfig, "limit of 1.5"},
		{"a negative limit", Config{Kernel: good, Memory: 4 << 20, CPUs: 1, CPULimit: -1}, ErrConfig, "limit"},
		{"too many devices", Config{Kernel: good, Memory: 4 << 20, CPUs: 1, Devices: make([]virtio.Device, MaxDevices+1)}, ErrConfig, "devices"},
		{"too many slots", Config{Kernel: good, Memory: 4 << 20, CPUs: 1, Slots: MaxDevices + 1}, ErrConfig, "slots"},
		{"negative slots", Config{Kernel: good, Memory: 4 << 20, CPUs: 1, Slots: -1}, ErrConfig, "slots"},
		{"long command line", Config{Kernel: good, Memory: 4 << 20, CPUs: 1, Cmdline: strings.Repeat("x", 5000)}, boot.ErrCmdline, "5000"},
		{"newline in command line", Config{Kernel: good, Memory: 4 << 20, CPUs: 1, Cmdline: "a\nb"}, boot.ErrCmdline, "byte 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := New(c.cfg)
			if err == nil {
				v.Close()
				t.Fatal("accepted")
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("error %v does not wrap %v", err, c.want)
			}
			if !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %q does not say %q", err, c.text)
			}
		})
	}
}

// TestKVMError: what New says where /dev/kvm cannot be opened.
func TestKVMError(t *testing.T) {
	for errno, remedy := range map[unix.Errno]string{unix.EACCES: "usermod -aG kvm", unix.ENOENT: "kvm_amd"} {
		err := error(kvmError(&os.PathError{Op: "open", Path: "/dev/kvm", Err: errno}))
		var k *KVMError
		if !errors.As(err, &k) || !strings.Contains(k.Remedy, remedy) || !errors.Is(err, errno) {
			t.Errorf("%v: %#v", errno, err)
		}
	}
}

// TestLeaks makes, runs and closes many VMs, and some that fail half way, and
// counts file descriptors, goroutines and mappings of guest memory.
func TestLeaks(t *testing.T) {
	needKVM(t)
	cycle := func() {
		guest := program{}.out(portSerial, 'x', '\n').powerOff()
		v := newTiny(t, guest, func(c *Config) {
			c.Console, c.Devices = io.Discard, []virtio.Device{&testDevice{kicks: make(chan int, 8)}}
		})
		run(t, v)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		unused := newTiny(t, guest, nil)
		if err := unused.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cycle()
	fds, goroutines, maps := count(t, "/proc/self/fd"), runtime.NumGoroutine(), mappings(t)
	for range 100 { // 200 VMs
		cycle()
	}
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > goroutines && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	if n := count(t, "/proc/self/fd"); n > fds {
		t.Errorf("%d file descriptors, %d before", n, fds)
	}
	if n := mappings(t); n > maps {
		t.Errorf("%d mappings of vCPUs or memory, %d before", n, maps)
	}
}

func count(t *testing.T, dir string) int {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// mappings counts what newTiny's VMs map: kvm_run pages and 4 MiB of memory.
func mappings(t *testing.T) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			t.Fatal(err)
		}
		heap := from>>32 == 0xc0 // Go's, which may have grown to any size
		if strings.Contains(line, "kvm-vcpu") || to-from == 4<<20 && !heap {
			n++
		}
	}
	return n
}

// TestHugeMemory runs a tiny guest in 512 GiB, of which the host gives what is
// touched: two huge pages where it backs memory by those.
func TestHugeMemory(t *testing.T) {
	v := newTiny(t, program{}.powerOff(), func(c *Config) { c.Memory = 512 << 30 })
	if exit := run(t, v); exit.Reason != PowerOff {
		t.Errorf("ended by %v", exit)
	}
	if n := v.Stats().Resident; n == 0 || n > 16<<20 {
		t.Errorf("%d bytes resident", n)
	}
}
