package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	pageSize = 4096
	readSize = 256 << 10 // a multiple of pageSize
)

var zeros [pageSize]byte

// describe reads a memory file and says what it is.
func describe(f *os.File) (Memory, error) {
	m, err := identify(f)
	if err != nil {
		return m, err
	}
	sum := sha256.New()
	buf := make([]byte, readSize)
	for off := int64(0); off < int64(m.Size); {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // holes to the end
		}
		if err != nil {
			return m, fmt.Errorf("read the memory: %w", err)
		}
		off = start &^ (pageSize - 1)
		n, err := f.ReadAt(buf[:min(readSize, int64(m.Size)-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return m, fmt.Errorf("read the memory: %w", err)
		}
		if n == 0 {
			return m, damaged("the memory became shorter")
		}
		for at := 0; at < n; at += pageSize {
			page := buf[at:min(at+pageSize, n)]
			if bytes.Equal(page, zeros[:len(page)]) {
				continue
			}
			var number [8]byte
			binary.LittleEndian.PutUint64(number[:], uint64(off)/pageSize+uint64(at)/pageSize)
			sum.Write(number[:])
			sum.Write(page)
			m.Data += uint64(len(page))
		}
		off += int64(n)
	}
	m.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return m, nil
}

// identify is describe without what has to be read.
func identify(f *os.File) (Memory, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Memory{}, fmt.Errorf("stat the memory: %w", err)
	}
	return Memory{Size: uint64(st.Size), Inode: st.Ino, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano()}, nil
}

// verify compares a memory file with what it was; see the package's comment.
func (m *Memory) verify(f *os.File) error {
	now, err := identify(f)
	if err != nil {
		return err
	}
	if now.Size != m.Size {
		return damaged("the memory has %d bytes, not %d", now.Size, m.Size)
	}
	if now.Inode == m.Inode && now.MTime == m.MTime && now.CTime == m.CTime {
		return nil
	}
	if now, err = describe(f); err != nil {
		return err
	}
	if now.SHA256 != m.SHA256 {
		return damaged("the memory's checksum is wrong")
	}
	return nil
}

// ours says whether f is a file or directory of the caller's that nobody else may
// write to.
func ours(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: %w", f.Name(), ErrForeign)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s: %w", f.Name(), ErrWritable)
	}
	return nil
}

// Errors about who may have made a snapshot.
var (
	ErrForeign  = errors.New("belongs to another user")
	ErrWritable = errors.New("others may write to it")
)
