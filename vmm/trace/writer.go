package trace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// bufferRecords is how many records a vCPU gathers: 64 KiB.
const bufferRecords = 2048

// Writer takes the records of one VM.
type Writer struct {
	header Header
	base   time.Time

	mu      sync.Mutex
	out     io.WriteCloser
	left    int64
	dropped uint64
	err     error
	begun   bool
}

// NewWriter returns a Writer to out, which it closes. Begin writes the header.
func NewWriter(out io.WriteCloser, h Header) *Writer {
	h.Magic, h.Version = magic, version
	if h.Limit == 0 {
		h.Limit = DefaultLimit
	}
	return &Writer{header: h, out: out, left: h.Limit}
}

// Begin adds to the header what the machine knows of itself, writes it and
// starts the clock. Records before it are lost.
func (w *Writer) Begin(complete func(*Header)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	complete(&w.header)
	var raw unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &raw); err != nil {
		return fmt.Errorf("start the trace: %w", err)
	}
	w.base, w.header.Start = time.Now(), raw.Nano()
	line, err := json.Marshal(&w.header)
	if err == nil {
		_, err = w.out.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("start the trace: %w", err)
	}
	w.begun = true
	return nil
}

// Buffer returns what vCPU id records with. A nil Writer gives a nil Buffer,
// which records nothing.
func (w *Writer) Buffer(id int) *Buffer {
	if w == nil {
		return nil
	}
	return &Buffer{w: w, id: uint8(id), bytes: make([]byte, 0, bufferRecords*recordSize)}
}

// write appends whole records to the file.
func (w *Writer) write(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	room := min(int64(len(b)), w.left/recordSize*recordSize)
	if w.err != nil || !w.begun {
		room = 0
	}
	w.dropped += uint64(int64(len(b))-room) / recordSize
	if room == 0 {
		return
	}
	w.left -= room
	_, w.err = w.out.Write(b[:room])
}

// Close writes how many records were dropped and closes the file. Its error is
// the first one of any write. Precondition: every Buffer was flushed.
func (w *Writer) Close() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && w.begun && w.dropped > 0 {
		var b [recordSize]byte
		(&Record{Time: uint64(time.Since(w.base)), Kind: Dropped, Addr: w.dropped}).put(b[:])
		_, w.err = w.out.Write(b[:])
	}
	if err := errors.Join(w.err, w.out.Close()); err != nil {
		return fmt.Errorf("write the trace: %w", err)
	}
	return nil
}

// Buffer gathers the records of one vCPU. Its methods are the vCPU's goroutine's.
type Buffer struct {
	w     *Writer
	id    uint8
	bytes []byte
}

// Now is the time for a Record, in nanoseconds; 0 without a Writer.
func (b *Buffer) Now() uint64 {
	if b == nil {
		return 0
	}
	return uint64(time.Since(b.w.base))
}

// Add records r, which has ended now if it has a time.
func (b *Buffer) Add(r Record) {
	if b == nil {
		return
	}
	r.VCPU = b.id
	r.Host = uint32(min(b.Now()-r.Time, 1<<32-1))
	n := len(b.bytes)
	b.bytes = b.bytes[:n+recordSize]
	r.put(b.bytes[n:])
	if len(b.bytes) == cap(b.bytes) {
		b.Flush()
	}
}

// Flush hands what was recorded to the Writer.
func (b *Buffer) Flush() {
	if b != nil && len(b.bytes) > 0 {
		b.w.write(b.bytes)
		b.bytes = b.bytes[:0]
	}
}
