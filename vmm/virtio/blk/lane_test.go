package blk

import (
	"bytes"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/iovec"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// slow is a disk that has nothing in the page cache and waits for the test.
type slow struct {
	disk
	entered chan bool // one for each read or sync that waits
	release chan bool
	reads   atomic.Int64 // that waited
}

func (s *slow) readAt(l *iovec.List, off int64, wait bool) (int, error) {
	if !wait {
		return 0, errWouldWait
	}
	s.entered <- true
	<-s.release
	s.reads.Add(1)
	return s.disk.readAt(l, off, true)
}

func (s *slow) sync() error {
	s.entered <- true
	<-s.release
	return s.disk.sync()
}

func startSlow(t *testing.T, o Options) (*Device, *v.Driver, *slow) {
	t.Helper()
	o.Path = diskOf(t, 1<<20)
	dev, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &slow{disk: dev.disk, entered: make(chan bool, 100), release: make(chan bool)}
	dev.disk = s
	return dev, v.Start(t, dev), s
}

// Reads that wait for the disk do so at the same time, as many as there are
// workers; the queue goes on when one comes back.
func TestReadsWaitTogether(t *testing.T) {
	const n = maxWorkers + 4
	dev, d, s := startSlow(t, Options{})
	for range n {
		add(d, typeIn, d.In(512))
	}
	served := make(chan bool)
	go func() { dev.Kick(0); close(served) }()
	for range maxWorkers + 1 { // and the one that serves the queue
		<-s.entered
	}
	select {
	case <-s.entered:
		t.Error("more reads at once than there are workers")
	default:
	}
	close(s.release)
	<-served
	for range n {
		if _, written := d.Ring(0).Wait(); written != 513 {
			t.Errorf("%d bytes used", written)
		}
	}
	if got := s.reads.Load(); got != n {
		t.Errorf("%d reads, want %d", got, n)
	}
}

// What is behind a FLUSH that takes long is answered before it.
func TestFlushHoldsNothingUp(t *testing.T) {
	dev, d, s := startSlow(t, Options{})
	flush := add(d, typeFlush)
	write := add(d, typeOut, d.Out(bytes.Repeat([]byte{7}, 512)))
	dev.Kick(0)
	<-s.entered
	if d.Bytes(write)[0] != statusOK || d.Bytes(flush)[0] != 0xee || d.Ring(0).UsedIndex() != 1 {
		t.Errorf("write: status %#x, flush: %#x, %d answered", d.Bytes(write)[0], d.Bytes(flush)[0], d.Ring(0).UsedIndex())
	}
	s.release <- true
	d.Ring(0).Wait()
	d.Ring(0).Wait()
	if d.Bytes(flush)[0] != statusOK {
		t.Errorf("flush: status %#x", d.Bytes(flush)[0])
	}
}

// A single request is executed where it is: no worker is made.
func TestNoWorkerForOne(t *testing.T) {
	dev, d, s := startSlow(t, Options{})
	close(s.release)
	for range 3 {
		add(d, typeIn, d.In(512))
		dev.Kick(0)
		if _, _, ok := d.Ring(0).Next(); !ok {
			t.Error("not answered at once")
		}
	}
	if n := dev.workers.started.Load(); n != 0 {
		t.Errorf("%d workers", n)
	}
}

// A read that has a part of its data in the page cache waits for the rest only.
func TestPartlyCached(t *testing.T) {
	dev, d, s := startSlow(t, Options{})
	dev.disk = &half{slow: s}
	close(s.release)
	in := d.In(2048)
	status := add(d, typeIn, in)
	add(d, typeGetID, d.In(20))
	text := bytes.Repeat([]byte("duplex! "), 256)
	f := s.disk.(*file)
	var l iovec.List
	l.Set([][]byte{text}, 0, 2048)
	if _, err := f.writeAt(&l, 0, false); err != nil {
		t.Fatal(err)
	}
	dev.Kick(0)
	d.Ring(0).Wait()
	d.Ring(0).Wait()
	if d.Bytes(status)[0] != 0 || !bytes.Equal(d.Bytes(in), text) {
		t.Errorf("status %d, or wrong data", d.Bytes(status)[0])
	}
}

// half has the first half of 2048 bytes in the page cache.
type half struct{ *slow }

func (h *half) readAt(l *iovec.List, off int64, wait bool) (int, error) {
	if !wait && off == 0 {
		n, err := h.disk.readAt(l, off, true)
		return min(n, 1024), err
	}
	return h.slow.readAt(l, off, wait)
}

// A reset cuts a large request short: it waits for one system call at most.
func TestResetCutsLargeRequests(t *testing.T) {
	dev, d, s := startSlow(t, Options{})
	if err := unix.Ftruncate(s.disk.(*file).fd, MaxRequest); err != nil {
		t.Fatal(err)
	}
	dev.size = MaxRequest
	bufs := make([]v.Buf, 32)
	for i := range bufs {
		bufs[i] = v.Buf{Addr: 0x200000, Len: chunk, Write: true}
	}
	status := add(d, typeIn, bufs...)
	go dev.Kick(0)
	<-s.entered
	done := make(chan bool)
	go func() { dev.Reset(); close(done) }()
	for !dev.stopping.Load() {
		runtime.Gosched()
	}
	s.release <- true
	<-done
	if n := s.reads.Load(); n != 1 || d.Bytes(status)[0] != statusIOErr {
		t.Errorf("%d reads, status %#x", n, d.Bytes(status)[0])
	}
}

// A reset waits for the reads that wait for the disk, and those that nobody
// began are forgotten; Close ends the workers.
func TestResetWhileReadsWait(t *testing.T) {
	dev, d, s := startSlow(t, Options{Queues: 2})
	for range 4 {
		add(d, typeIn, d.In(512))
	}
	go dev.Kick(0)
	for range 4 {
		<-s.entered
	}
	r := d.Ring(0)
	reset := make(chan uint16)
	go func() {
		dev.Reset()
		reset <- r.UsedIndex()
	}()
	select {
	case <-reset:
		t.Error("the reset did not wait")
	default:
	}
	close(s.release)
	if n := <-reset; n != r.UsedIndex() || s.reads.Load() != 4 {
		t.Errorf("%d answered at the reset, %d now; %d reads", n, r.UsedIndex(), s.reads.Load())
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	if err := dev.Activate(virtio.Activation{}); err == nil {
		t.Error("a closed device was started")
	}
}
