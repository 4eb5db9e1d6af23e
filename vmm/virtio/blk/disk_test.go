package blk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/memory"
	"github.com/duplex-run/duplex/vmm/virtio/iovec"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// traced notes what is done to a disk, and how many requests are answered when
// it is done.
type traced struct {
	disk
	d     *v.Driver
	trace []event
	fail  error // what sync returns
}

type event struct {
	op       string
	stable   bool
	answered uint16
}

func (t *traced) note(op string, stable bool) {
	t.trace = append(t.trace, event{op, stable, t.d.Ring(0).UsedIndex()})
}

func (t *traced) writeAt(l *iovec.List, off int64, stable bool) (int, error) {
	t.note("write", stable)
	return t.disk.writeAt(l, off, stable)
}

func (t *traced) sync() error {
	err := t.disk.sync()
	t.note("sync", false)
	return errors.Join(err, t.fail)
}

// trace starts a read-write device whose disk is traced; refuse has features
// that the driver does not take.
func trace(t *testing.T, refuse uint64) (*v.Driver, *traced) {
	t.Helper()
	dev, err := Open(Options{Path: diskOf(t, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &traced{disk: dev.disk}
	dev.disk = tr
	tr.d = v.Attach(t, dev)
	tr.d.Refuse = refuse
	tr.d.Init()
	return tr.d, tr
}

func diskOf(tb testing.TB, size int64) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		tb.Fatal(err)
	}
	return path
}

func header(kind byte) []byte { return append([]byte{kind}, make([]byte, 15)...) }

// add makes a request for sector 0 available and returns where its status goes.
func add(d *v.Driver, kind byte, data ...v.Buf) v.Buf {
	status := d.In(1)
	d.Put(status.Addr, []byte{0xee})
	d.Ring(0).Add(append(append([]v.Buf{d.Out(header(kind))}, data...), status)...)
	return status
}

// fdatasync ends before the driver hears of FLUSH, and after the writes before
// it; what is before it in the queue is answered first.
func TestFlushIsSynced(t *testing.T) {
	d, tr := trace(t, 0)
	add(d, typeOut, d.Out(make([]byte, 512)))
	status := add(d, typeFlush)
	d.Kick(0)
	if want := []event{{"write", false, 0}, {"sync", false, 1}}; !slices.Equal(tr.trace, want) {
		t.Errorf("trace %v, want %v", tr.trace, want)
	}
	if n := d.Ring(0).UsedIndex(); n != 2 || d.Bytes(status)[0] != statusOK {
		t.Errorf("%d answered, status %d", n, d.Bytes(status)[0])
	}
	tr.fail = unix.EIO
	status = add(d, typeFlush)
	d.Kick(0)
	if s := d.Bytes(status)[0]; s != statusIOErr {
		t.Errorf("fdatasync failed, status %d", s)
	}
}

// After FLUSH the kernel has no dirty page of the file.
func TestFlushReachesTheDisk(t *testing.T) {
	path := diskOf(t, 1<<20)
	dev, err := Open(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	d := v.Start(t, dev)
	dirty := func() uint64 {
		var st unix.Cachestat_t
		err := unix.Cachestat(uint(dev.disk.(*file).fd), &unix.CachestatRange{Off: 0, Len: 1 << 20}, &st, 0)
		if errors.Is(err, unix.ENOSYS) {
			t.Skip("the kernel cannot count dirty pages (cachestat, Linux 6.5)")
		}
		if err != nil {
			t.Fatal(err)
		}
		return st.Dirty + st.Writeback
	}
	add(d, typeOut, d.Out(bytes.Repeat([]byte{1}, 64<<10)))
	d.Kick(0)
	if dirty() == 0 {
		t.Skip("the file system has no dirty pages (tmpfs)")
	}
	add(d, typeFlush)
	d.Kick(0)
	if n := dirty(); n != 0 || d.Ring(0).UsedIndex() != 2 {
		t.Errorf("%d pages are dirty after FLUSH", n)
	}
}

// A driver without FLUSH, or with the cache switched off, gets stable writes.
func TestWriteThrough(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse uint64
		wce    byte
		stable bool
	}{
		{"cache on", 0, 1, false},
		{"cache off", 0, 0, true},
		{"no FLUSH", featureFlush, 1, true},
		{"no CONFIG_WCE", featureConfigWCE, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, tr := trace(t, c.refuse)
			d.Transport.Write(v.RegConfig+configWriteback, []byte{c.wce})
			add(d, typeOut, d.Out(make([]byte, 512)))
			d.Kick(0)
			if want := []event{{"write", c.stable, 0}}; !slices.Equal(tr.trace, want) {
				t.Errorf("trace %v, want %v", tr.trace, want)
			}
			p := []byte{9, 9, 9}
			d.Transport.Read(v.RegConfig+configWriteback-1, p)
			if want := c.refuse == featureConfigWCE || c.wce == 1; (p[1] == 1) != want || p[2] != 0 {
				t.Errorf("the writeback field reads %v", p)
			}
			d.Init()
			if d.Transport.Read(v.RegConfig+configWriteback, p[:1]); p[0] != 1 {
				t.Error("the cache is off after a reset")
			}
		})
	}
}

// O_DIRECT takes aligned guest memory as it is, and the rest by the bounce
// buffer, whose size bounds what that costs.
func TestDirect(t *testing.T) {
	dev, err := Open(Options{Path: diskOf(t, 1<<20), Direct: true})
	if err != nil {
		t.Fatal(err)
	}
	d := v.Start(t, dev)
	text := bytes.Repeat([]byte("duplex! "), 1<<20/8)
	const aligned, odd = memory.GPA(0x100000), memory.GPA(0x200010)
	d.Put(aligned, text)
	status := add(d, typeOut, v.Buf{Addr: aligned, Len: 1 << 20})
	d.Kick(0)
	if s := d.Bytes(status)[0]; s != 0 || dev.lanes[0].mover.bounce != nil {
		t.Fatalf("write: status %d, bounce buffer of %d", s, len(dev.lanes[0].mover.bounce))
	}
	for _, at := range []memory.GPA{aligned, odd} {
		d.Put(at, make([]byte, 1<<20))
		// A piece of a length that O_DIRECT does not take, too.
		status := add(d, typeIn, v.Buf{Addr: at, Len: 1<<20 - 17, Write: true}, v.Buf{Addr: at + 1<<20 - 17, Len: 17, Write: true})
		d.Kick(0)
		if s := d.Bytes(status)[0]; s != 0 || !bytes.Equal(d.Bytes(v.Buf{Addr: at, Len: 1 << 20}), text) {
			t.Errorf("read at %#x: status %d", at, s)
		}
	}
	if n := len(dev.lanes[0].mover.bounce); n != bounceSize {
		t.Errorf("bounce buffer of %d bytes", n)
	}
	flags, err := unix.FcntlInt(uintptr(dev.disk.(*file).fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_DIRECT == 0 {
		t.Errorf("file flags %#x, %v", flags, err)
	}
}

func TestWriteZeroesByHand(t *testing.T) {
	path := diskOf(t, 1<<20)
	if err := os.WriteFile(path, bytes.Repeat([]byte{1}, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	d := &file{fd: int(f.Fd())}
	if err := d.writeZeroes(512, 1<<20-1024); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 1<<20)
	copy(want, bytes.Repeat([]byte{1}, 512))
	copy(want[1<<20-512:], bytes.Repeat([]byte{1}, 512))
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("wrong bytes are zero: %v", err)
	}
}
