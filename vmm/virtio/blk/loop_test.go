package blk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/blk"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// loop makes a block device of a file.
func loop(t *testing.T, path string) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no loop devices for this user: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = control.Close() }()
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = backing.Close() }()
	for range 20 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		dev, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_FD, int(backing.Fd()))
		if errors.Is(err, unix.EBUSY) { // another process took it
			_ = dev.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0), dev.Close()); err != nil {
				t.Error(err)
			}
		})
		return name
	}
	t.Fatal("no free loop device")
	return ""
}

// A block device of the host is a disk like a file.
func TestBlockDevice(t *testing.T) {
	path, want := diskFile(t)
	name := loop(t, path)
	text := bytes.Repeat([]byte("duplex! "), 128)
	for _, direct := range []bool{false, true} {
		dev := openWith(t, blk.Options{Path: name, Direct: direct})
		d := v.Start(t, dev)
		if got := d.Reg(v.RegConfig); got != sectors {
			t.Errorf("capacity %d, want %d", got, sectors)
		}
		for _, s := range []byte{
			do(t, d, 1, 4, text), do(t, d, 13, 0, span(16, 8, 0)), do(t, d, 13, 0, span(24, 8, 1)),
			do(t, d, 11, 0, span(32, 8, 0)), do(t, d, 4, 0),
		} {
			if s != 0 {
				t.Errorf("direct %v: status %d", direct, s)
			}
		}
		copy(want[4*512:], text)
		clear(want[16*512 : 32*512])
		in := d.In(sectors * 512)
		d.Ring(0).Add(d.Out(request(0, 0)), in, d.In(1))
		d.Kick(0)
		d.Ring(0).Wait()
		got := d.Bytes(in)
		copy(got[32*512:40*512], want[32*512:]) // discarded: anything
		if !bytes.Equal(got, want) {
			t.Errorf("direct %v: the disk is not as expected", direct)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
}
