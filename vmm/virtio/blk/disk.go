package blk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/iovec"
)

// ErrInUse reports a file that another disk has open for writing, or that is in
// use elsewhere when it is to be written.
var ErrInUse = errors.New("in use by another machine")

// errWouldWait says that data is not in the page cache.
var errWouldWait = errors.New("the read would wait for the disk")

// disk is what requests are executed on; file is the one of the product.
type disk interface {
	// readAt and writeAt move once what l holds, at least a byte. A readAt that
	// must not wait for the disk fails with errWouldWait instead.
	readAt(l *iovec.List, off int64, wait bool) (int, error)
	writeAt(l *iovec.List, off int64, stable bool) (int, error)
	// sync returns when all that was written is on stable storage.
	sync() error
	// discard tells that n bytes are not needed; they then read as anything.
	discard(off, n int64) error
	// zero makes n bytes read as zero; unmap allows to give their space back.
	zero(off, n int64, unmap bool) error
}

// alignment is what O_DIRECT asks for, in bytes, powers of two.
type alignment struct {
	memory uint64 // of addresses; 1 without O_DIRECT
	offset uint64 // of offsets and lengths, at least SectorSize
}

func (a alignment) direct() bool { return a.memory > 1 }

// file is a disk in a file or block device.
type file struct {
	fd    int
	size  int64
	block bool // a block device
	align alignment
}

// openDisk checks that f can be the disk, takes its lock and sets O_DIRECT.
func openDisk(f *os.File, readOnly, direct bool) (*file, error) {
	d := &file{fd: int(f.Fd()), align: alignment{1, SectorSize}}
	if err := d.measure(f); err != nil {
		return nil, err
	}
	flags, err := unix.FcntlInt(uintptr(d.fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if !readOnly && flags&unix.O_ACCMODE != unix.O_RDWR {
		return nil, errors.New("the file is not open for reading and writing")
	}
	if err := lock(d.fd, readOnly); err != nil {
		return nil, err
	}
	if !direct {
		return d, nil
	}
	if _, err := unix.FcntlInt(uintptr(d.fd), unix.F_SETFL, flags|unix.O_DIRECT); err != nil {
		return nil, fmt.Errorf("the file system has no direct input and output (O_DIRECT): %w", err)
	}
	d.align = directAlignment(d.fd)
	if d.size%int64(d.align.offset) != 0 {
		return nil, fmt.Errorf("%d bytes is not a multiple of %d, the block size of direct input and output",
			d.size, d.align.offset)
	}
	return d, nil
}

// measure finds the size in bytes of a file that can be a disk.
func (d *file) measure(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m := info.Mode()
	d.block = m&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice
	if !m.IsRegular() && !d.block {
		return errors.New("neither a file nor a block device")
	}
	if d.size, err = f.Seek(0, io.SeekEnd); err != nil { // Stat has no size for a block device
		return err
	}
	if d.size%SectorSize != 0 {
		return fmt.Errorf("%d bytes is not a multiple of %d", d.size, SectorSize)
	}
	return nil
}

// lock takes the file for one writer or for readers, until it is closed.
func lock(fd int, readOnly bool) error {
	how := unix.LOCK_EX
	if readOnly {
		how = unix.LOCK_SH
	}
	err := retry(func() error { return unix.Flock(fd, how|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrInUse
	}
	return os.NewSyscallError("flock", err)
}

// directAlignment is what the file asks of direct input and output; kernels
// before 6.1 and some file systems do not say, and a page does for all.
func directAlignment(fd int) alignment {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 || st.Dio_mem_align == 0 || st.Dio_offset_align == 0 {
		return alignment{4096, 4096}
	}
	return alignment{max(uint64(st.Dio_mem_align), 2), max(uint64(st.Dio_offset_align), SectorSize)}
}

func (d *file) readAt(l *iovec.List, off int64, wait bool) (int, error) {
	flags := 0
	if !wait {
		flags = unix.RWF_NOWAIT
	}
	n, err := l.ReadAt(d.fd, off, flags)
	if !wait && errors.Is(err, unix.EOPNOTSUPP) { // some file systems always wait
		n, err = l.ReadAt(d.fd, off, 0)
	}
	switch {
	case errors.Is(err, unix.EAGAIN):
		err = errWouldWait
	case err == nil && n == 0:
		err = io.ErrUnexpectedEOF // the file shrank
	}
	return n, err
}

func (d *file) writeAt(l *iovec.List, off int64, stable bool) (int, error) {
	flags := 0
	if stable {
		flags = unix.RWF_DSYNC
	}
	n, err := l.WriteAt(d.fd, off, flags)
	if err == nil && n == 0 {
		err = io.ErrShortWrite
	}
	return n, err
}

func (d *file) sync() error {
	return retry(func() error { return unix.Fdatasync(d.fd) })
}

// retry makes a system call again that a signal interrupted; Go's runtime sends
// itself some.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (d *file) fallocate(mode uint32, off, n int64) error {
	return retry(func() error { return unix.Fallocate(d.fd, mode, off, n) })
}

const (
	modePunch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	modeZero  = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
)

// discard is a hint: a file system that cannot give space back may ignore it.
func (d *file) discard(off, n int64) error {
	var err error
	if d.block {
		err = retry(func() error { return blockDiscard(d.fd, off, n) })
	} else {
		err = d.fallocate(modePunch, off, n)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// zero tries the kernel's ways, and then writes. On block devices fallocate
// zeroes too (Linux 4.9), without leaving old data behind.
func (d *file) zero(off, n int64, unmap bool) error {
	err := error(unix.EOPNOTSUPP)
	if unmap {
		err = d.fallocate(modePunch, off, n)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = d.fallocate(modeZero, off, n)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return d.writeZeroes(off, n)
	}
	return err
}

// writeZeroes writes n zero bytes, from a buffer that suits O_DIRECT.
func (d *file) writeZeroes(off, n int64) error {
	buf, err := newBounce()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(buf) }()
	for n > 0 {
		wrote, err := unix.Pwrite(d.fd, buf[:min(n, int64(len(buf)))], off)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		off, n = off+int64(max(wrote, 0)), n-int64(max(wrote, 0))
	}
	return nil
}
