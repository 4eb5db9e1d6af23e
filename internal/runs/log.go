package runs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// The log is frames, each a byte that says which stream (1, 2), a uint32 (little
// endian) length, and that many bytes. It is kept in two files: when the newer one
// is LogLimit long it becomes the older one.

const (
	// LogLimit is what is kept of a log at least, in bytes, if there is so much.
	LogLimit = 16 << 20
	logName  = "log"
	oldName  = "log.1"
	maxFrame = 1 << 20
	headSize = 5
)

type logWriter struct {
	dir  string
	f    *os.File
	size int64
}

func newLog(dir string) (*logWriter, error) {
	l := &logWriter{dir: dir}
	var err error
	if l.f, err = os.OpenFile(filepath.Join(dir, logName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("make the log: %w", err)
	}
	return l, nil
}

// write adds what a stream got; a disk that is full loses it.
func (l *logWriter) write(stream int, p []byte) {
	for len(p) > 0 {
		n := min(len(p), maxFrame)
		frame := binary.LittleEndian.AppendUint32([]byte{byte(stream)}, uint32(n))
		if _, err := l.f.Write(append(frame, p[:n]...)); err != nil {
			_ = l.f.Truncate(l.size) // half a frame would hide what comes after it
			return
		}
		l.size += int64(headSize + n)
		p = p[n:]
		if l.size >= LogLimit {
			l.rotate()
		}
	}
}

func (l *logWriter) rotate() {
	if os.Rename(filepath.Join(l.dir, logName), filepath.Join(l.dir, oldName)) != nil {
		return
	}
	if next, err := newLog(l.dir); err == nil {
		_ = l.f.Close()
		*l = *next
	}
}

// frame is a piece of the log.
type frame struct {
	stream int
	data   []byte
}

// readFrame reads the next frame; io.EOF means that there is none yet.
func readFrame(r io.Reader) (frame, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if head[0] < 1 || head[0] > 2 || n == 0 || n > maxFrame {
		return frame{}, errors.New("the log is damaged")
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return frame{}, io.ErrUnexpectedEOF
	}
	return frame{int(head[0]), data}, nil
}

// Log writes a run's log to out and errs: its last lines, or everything when tail
// is below 0. With follow it goes on until the run has ended or ctx has.
func Log(ctx context.Context, id string, tail int, follow bool, out, errs io.Writer) error {
	dir, err := Dir(id)
	if err != nil {
		return err
	}
	var list []frame
	f, err := os.Open(filepath.Join(dir, logName))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if old, oerr := os.Open(filepath.Join(dir, oldName)); oerr == nil {
		list, err = readFrames(old, list)
		_ = old.Close()
	}
	if err == nil {
		list, err = readFrames(f, list)
	}
	for _, fr := range lastLines(list, tail) {
		if werr := fr.write(out, errs); werr != nil {
			return werr
		}
	}
	if err != nil || !follow {
		return err
	}
	return followLog(ctx, dir, f, out, errs)
}

func (fr frame) write(out, errs io.Writer) error {
	if fr.stream == 2 {
		out = errs
	}
	_, err := out.Write(fr.data)
	return err
}

// readFrames reads all whole frames, and leaves f behind the last one.
func readFrames(f *os.File, list []frame) ([]frame, error) {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return list, err
	}
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		fr, err := readFrame(r)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			_, err := f.Seek(at, io.SeekStart)
			return list, err
		}
		if err != nil {
			return list, err
		}
		at += int64(headSize + len(fr.data))
		list = append(list, fr)
	}
}

// lastLines keeps the last n lines, each stream's pieces in the order they came.
func lastLines(list []frame, n int) []frame {
	if n < 0 {
		return list
	}
	if n == 0 {
		return nil
	}
	seen := 0
	for i := len(list) - 1; i >= 0; i-- {
		data := list[i].data
		end := len(data)
		if i == len(list)-1 && data[end-1] == '\n' {
			end-- // it ends the last line
		}
		for {
			at := bytes.LastIndexByte(data[:end], '\n')
			if at < 0 {
				break
			}
			if seen++; seen == n {
				rest := append([]frame{{list[i].stream, data[at+1:]}}, list[i+1:]...)
				return rest
			}
			end = at
		}
	}
	return list
}

// pollEvery is how often a log that is followed is looked at.
const pollEvery = 50 * time.Millisecond

func followLog(ctx context.Context, dir string, f *os.File, out, errs io.Writer) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		alive := isLocked(dir) // before reading: what comes after it is the rest
		next, _ := os.Open(filepath.Join(dir, logName))
		list, err := readFrames(f, nil)
		for _, fr := range list {
			if werr := fr.write(out, errs); werr != nil {
				_ = next.Close()
				return werr
			}
		}
		rotated := next != nil && !sameFile(f, next)
		if rotated && err == nil {
			f = next
			defer func() { _ = next.Close() }()
			continue
		}
		_ = next.Close()
		if err != nil || !alive {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func sameFile(a, b *os.File) bool {
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}
