package iovec

import "golang.org/x/sys/unix"

// Max is the largest number of pieces in one system call (IOV_MAX); what is
// beyond is left for the next.
const Max = 1024

// List is a vector for the kernel. The zero List is empty. It is not safe for
// concurrent use.
type List struct{ vec []unix.Iovec }

// Set fills l with the pieces of bufs that hold their bytes off to off+n and
// returns how many bytes those are. Pieces beyond Max are left out.
func (l *List) Set(bufs [][]byte, off, n int) int {
	l.vec = l.vec[:0]
	left := n
	for _, b := range bufs {
		if left <= 0 || len(l.vec) == Max {
			break
		}
		if off >= len(b) {
			off -= len(b)
			continue
		}
		b = b[off:]
		off = 0
		b = b[:min(len(b), left)]
		left -= len(b)
		l.vec = append(l.vec, Of(b))
	}
	return n - left
}

// Of is the entry of a vector that stands for b, which must not be empty. It keeps
// b alive.
func Of(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}

// Aligned says whether each piece starts at a multiple of addr bytes in host
// memory and is a multiple of length bytes long, as O_DIRECT asks. Both are
// powers of two.
func (l *List) Aligned(addr, length uint64) bool {
	for i := range l.vec {
		if address(l.vec[i].Base)&(addr-1) != 0 || l.vec[i].Len&(length-1) != 0 {
			return false
		}
	}
	return true
}
