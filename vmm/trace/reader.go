package trace

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrFormat reports a file that is not a trace.
var ErrFormat = errors.New("not a trace file")

// Reader reads a trace file record by record.
type Reader struct {
	Header Header
	in     *bufio.Reader
}

// NewReader reads the header. Its error wraps ErrFormat for other files.
func NewReader(r io.Reader) (*Reader, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	line, err := readLine(in)
	if err != nil {
		return nil, err
	}
	t := &Reader{in: in}
	if err := json.Unmarshal(line, &t.Header); err != nil || t.Header.Magic != magic {
		return nil, ErrFormat
	}
	if t.Header.Version != version {
		return nil, fmt.Errorf("%w of this version: it is version %d, this duplex reads %d", ErrFormat, t.Header.Version, version)
	}
	return t, nil
}

// readLine reads up to a newline, maxHeader bytes at most.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for len(line) < maxHeader {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil, ErrFormat
		default:
			return nil, fmt.Errorf("read the trace: %w", err)
		}
	}
	return nil, ErrFormat
}

// Next reads the next record, or returns io.EOF. A file that ends within a
// record, as after a crash, ends before it.
func (t *Reader) Next(r *Record) error {
	var b [recordSize]byte
	if _, err := io.ReadFull(t.in, b[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return io.EOF
		}
		return fmt.Errorf("read the trace: %w", err)
	}
	r.get(b[:])
	return nil
}
