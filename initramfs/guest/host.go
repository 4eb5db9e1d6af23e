package main

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
)

// host is the control stream's other end.
type host struct {
	mu      sync.Mutex
	control *os.File
	// gone is closed when the host hung up.
	gone chan struct{}
}

func (h *host) send(m *agentproto.Message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return agentproto.Write(h.control, m)
}

// output copies what the workload writes to the host and counts it.
type output struct {
	from *os.File
	sent atomic.Uint64
	done chan struct{}
}

func startOutput(from, to *os.File) *output {
	o := &output{from: from, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		defer func() { _ = from.Close() }()
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 && !o.pass(to, buf[:n]) {
				return
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				o.rest(to, buf)
			}
			if err != nil { // EOF, or EIO from a pty without a slave
				return
			}
		}
	}()
	return o
}

func (o *output) pass(to *os.File, data []byte) bool {
	n, err := to.Write(data)
	o.sent.Add(uint64(n))
	return err == nil
}

// settle has the copying end once what was written so far is passed on.
func (o *output) settle() { _ = o.from.SetReadDeadline(time.Unix(1, 0)) }

// rest passes on what can be read without waiting.
func (o *output) rest(to *os.File, buf []byte) {
	raw, err := o.from.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for {
			n, err := unix.Read(int(fd), buf)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if n <= 0 || !o.pass(to, buf[:n]) {
				return
			}
		}
	})
}

// input copies what the host sends to the workload's stdin.
type input struct {
	mu   sync.Mutex
	to   *os.File
	eof  []byte // what a terminal reads as its end; nil: closing is the end
	got  uint64
	want uint64
	last bool // want is known
}

func startInput(from, to *os.File, eof []byte) *input {
	in := &input{to: to, eof: eof}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				if _, werr := to.Write(buf[:n]); werr != nil {
					return // the workload closed its stdin: the host may keep the rest
				}
				in.step(uint64(n))
			}
			if err == io.EOF {
				in.end(in.got)
			}
			if err != nil {
				return
			}
		}
	}()
	return in
}

func (in *input) step(n uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.got += n
	in.finish()
}

// end says that the host sends no more than want bytes in all.
func (in *input) end(want uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.want, in.last = want, true
	in.finish()
}

func (in *input) finish() {
	if !in.last || in.got < in.want || in.to == nil {
		return
	}
	if in.eof != nil {
		_, _ = in.to.Write(in.eof)
	} else {
		_ = in.to.Close()
	}
	in.to = nil
}
