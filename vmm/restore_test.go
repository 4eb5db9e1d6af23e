package vmm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/duplex-run/duplex/vmm/state"
	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/balloon"
	"github.com/duplex-run/duplex/vmm/virtio/rng"
)

// counting is a guest that counts in a register and in memory, reads a device's
// register in between, and writes each number to the marks port. It powers off
// when the two numbers or the device's register are not what they should be.
func counting() program {
	const counter = 2 << 20
	setup := program{}.store(counter, 0).then(0x31, 0xc9) // xor %ecx,%ecx
	magic := program{}.load(mmioBase).then(0x3d).word(0x74726976)
	count := program{}.then(0xff, 0xc1, 0xbb).word(counter). // inc %ecx; mov $counter,%ebx
									then(0xff, 0x03, 0x39, 0x0b) // incl (%rbx); cmp %ecx,(%rbx)
	tell := program{}.then(0x88, 0xc8, 0x66, 0xba, portMarks, 0, 0xee) // mov %cl,%al; mov $marks,%dx; out %al,%dx
	tail := len(count) + 2 + len(tell) + 2
	body := magic.then(0x75, byte(tail)).then(count...).then(0x75, byte(len(tell)+2)).then(tell...)
	body = body.then(0xeb, byte(-(len(body) + 2)))
	return setup.then(body...).powerOff()
}

// marked is a VM's marks.
func marked(c *Config) <-chan byte {
	marks := make(chan byte, 1)
	c.OnMark = func(b byte, _ int64) {
		select {
		case <-marks:
		default:
		}
		marks <- b // the last one
	}
	return marks
}

func fewDevices() []virtio.Device {
	return []virtio.Device{rng.New(), balloon.New(balloon.Options{Pages: 7})}
}

// saved pauses v and saves it.
func saved(t *testing.T, v *VM) (*state.Machine, *os.File) {
	t.Helper()
	if err := v.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	m, err := v.Save(f)
	if err != nil {
		t.Fatal(err)
	}
	return m, f
}

// A guest goes on counting where it was, in a VM of its own, again and again from
// one file, which stays as it is.
func TestRestore(t *testing.T) {
	var marks <-chan byte
	v := newTiny(t, counting(), func(c *Config) {
		marks = marked(c)
		c.Devices = fewDevices()
	})
	stop := start(t, v)
	<-marks
	tick := time.After(20 * time.Millisecond) // anywhere in the loop
	<-tick
	m, f := saved(t, v)
	last := <-marks
	if exit := stop(); exit.Reason != Canceled {
		t.Fatalf("the first guest: %v", exit)
	}
	before, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := state.Decode(m.Encode())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		first := make(chan byte, 1)
		cfg := Config{Memory: 4 << 20, CPUs: 1, Devices: fewDevices()}
		cfg.OnMark = func(b byte, _ int64) {
			select {
			case first <- b:
			default:
			}
		}
		clone, err := Restore(cfg, decoded, f)
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, clone)
		if b := <-first; b != last+1 {
			t.Errorf("after %d the guest went on with %d", last, b)
		}
		if exit := stop(); exit.Reason != Canceled {
			t.Errorf("the restored guest: %v", exit)
		}
		if err := clone.Close(); err != nil {
			t.Error(err)
		}
	}
	if after, err := os.ReadFile(f.Name()); err != nil || string(after) != string(before) {
		t.Errorf("restoring changed the memory file (%v)", err)
	}
}

// looking is a guest that writes the device id in place i to the marks port, on and on.
func looking(i int) program {
	const deviceID = 8
	p := program{}.load(mmioBase+uint32(i)*mmioSize+deviceID).then(0x66, 0xba, portMarks, 0, 0xee)
	return p.then(0xeb, byte(-(len(p) + 2)))
}

// In a slot a guest finds nothing, until it is restored with a device there.
func TestRestoreWithMoreDevices(t *testing.T) {
	var marks <-chan byte
	v := newTiny(t, looking(3), func(c *Config) {
		marks = marked(c)
		c.Devices, c.Slots = fewDevices(), 2
	})
	stop := start(t, v)
	if id := <-marks; id != 0 {
		t.Errorf("device %d in an empty slot", id)
	}
	m, f := saved(t, v)
	stop()
	for added, want := range []byte{0, 0, virtio.TypeEntropy} {
		cfg := Config{Memory: 4 << 20, CPUs: 1, Devices: fewDevices()}
		for range added {
			cfg.Devices = append(cfg.Devices, rng.New())
		}
		marks := marked(&cfg)
		clone, err := Restore(cfg, m, f)
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, clone)
		<-marks // may have been read before the guest was saved, and only then written
		if id := <-marks; id != want {
			t.Errorf("with %d devices more, device %d is in the second slot, not %d", added, id, want)
		}
		stop()
		if err := clone.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, n := range []int{1, 5} {
		cfg := Config{Memory: 4 << 20, CPUs: 1}
		for range n {
			cfg.Devices = append(cfg.Devices, rng.New())
		}
		if clone, err := Restore(cfg, m, f); !errors.Is(err, ErrOtherMachine) {
			t.Errorf("%d devices: %v, %v", n, clone, err)
		}
	}
}

func TestSaveNeedsPause(t *testing.T) {
	v := newTiny(t, marking, nil)
	stop := start(t, v)
	if _, err := v.Save(nil); !errors.Is(err, ErrNotPaused) {
		t.Errorf("Save of a running VM: %v", err)
	}
	stop()
}
