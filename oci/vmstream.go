package oci

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// untilReader reads from a file that others have too, until it is ended. A read
// that goes on would take what is meant for them, and keep a terminal open.
type untilReader struct {
	from     *os.File
	mu       sync.Mutex // held by a read
	end      *os.File   // readable when it is over; nil then
	endWrite *os.File
}

func newUntilReader(from *os.File) (*untilReader, error) {
	end, w, err := os.Pipe()
	return &untilReader{from: from, end: end, endWrite: w}, err
}

func (r *untilReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.end != nil {
		fds := []unix.PollFd{{Fd: int32(r.from.Fd()), Events: unix.POLLIN}, {Fd: int32(r.end.Fd()), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, err
		case fds[1].Revents != 0:
			return 0, io.EOF
		}
		return r.from.Read(p)
	}
	return 0, io.EOF
}

// stop ends the read that may be under way, and all others.
func (r *untilReader) stop() {
	_ = r.endWrite.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.end.Close()
	r.end = nil
}
