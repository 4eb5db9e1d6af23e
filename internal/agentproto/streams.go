package agentproto

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/duplex-run/duplex/internal/workload"
)

// chunk is the size of one copy, in bytes.
const chunk = 64 << 10

// drained is one output stream on its way to its writer.
type drained struct {
	port Port
	got  atomic.Uint64
	busy atomic.Bool   // the writer has not taken the last bytes yet
	more chan struct{} // holds a token when got grew
	done chan error    // the stream ended
}

// drain copies from the guest to w until the stream ends. When w fails (a
// closed pipe) the guest is told and the rest is thrown away.
func (s *Session) drain(ctx context.Context, port Port, r io.Reader, w io.Writer) *drained {
	d := &drained{port: port, more: make(chan struct{}, 1), done: make(chan error, 1)}
	go func() {
		buf := make([]byte, chunk)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				s.Recorder.Stamp(workload.PhaseFirstByte)
				if w != nil {
					d.busy.Store(true)
					_, werr := w.Write(buf[:n])
					d.busy.Store(false)
					if werr != nil {
						w = nil
						_ = s.write(&Message{Type: Closed, Stream: port.Name()})
					}
				}
				d.add(uint64(n))
			}
			if err != nil {
				d.done <- err
				return
			}
		}
	}()
	return d
}

func (d *drained) add(n uint64) {
	d.got.Add(n)
	select {
	case d.more <- struct{}{}:
	default:
	}
}

// await returns when want bytes have gone through, however slow the writer is.
func (d *drained) await(ctx context.Context, want uint64) error {
	for d.got.Load() < want {
		still := time.NewTimer(drainGrace)
		select {
		case <-d.more:
			still.Stop()
		case <-ctx.Done():
			still.Stop()
			return ctx.Err()
		case err := <-d.done:
			still.Stop()
			if d.got.Load() >= want {
				return nil
			}
			return fmt.Errorf("guest %s ended after %d of %d bytes: %w", d.port.Name(), d.got.Load(), want, err)
		case <-still.C:
			if d.busy.Load() {
				continue // a slow reader of ours, not a silent guest
			}
			return fmt.Errorf("guest %s stands still after %d of %d bytes", d.port.Name(), d.got.Load(), want)
		}
	}
	return nil
}

// feed copies stdin to the guest and sizes to its terminal.
func (s *Session) feed(ctx context.Context, interactive bool, stdio workload.Stdio) {
	go s.resizes(ctx, stdio.Resize)
	if !interactive || stdio.In == nil {
		go func() { _ = s.write(&Message{Type: StdinEOF}) }()
		return
	}
	go func() {
		n, _ := io.CopyBuffer(onlyWriter{s.Stdin}, onlyReader{stdio.In}, make([]byte, chunk))
		_ = s.write(&Message{Type: StdinEOF, Bytes: uint64(n)})
	}()
}

// onlyReader and onlyWriter hide ReadFrom and WriteTo, so that the buffer bounds
// each copy.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

func (s *Session) resizes(ctx context.Context, sizes <-chan workload.WinSize) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok || s.write(&Message{Type: Resize, Size: &size}) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// forward sends signals to the workload, those that came early first.
func (s *Session) forward(ctx context.Context, early []workload.Signal, signals <-chan workload.Signal) {
	for _, sig := range early {
		if s.write(&Message{Type: Signal, Signal: int(sig)}) != nil {
			return
		}
	}
	for {
		select {
		case sig, ok := <-signals:
			if !ok || s.write(&Message{Type: Signal, Signal: int(sig)}) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// unpacking is the tar stream of returned files on its way to Unpack.
type unpacking struct {
	drained *drained
	pipe    *io.PipeWriter
	result  chan error
}

func (s *Session) unpack() *unpacking {
	if s.Return == nil || s.Unpack == nil {
		return nil
	}
	r, w := io.Pipe()
	u := &unpacking{pipe: w, result: make(chan error, 1)}
	u.drained = &drained{port: Return, more: make(chan struct{}, 1), done: make(chan error, 1)}
	go func() {
		err := s.Unpack(r)
		_ = r.CloseWithError(io.ErrClosedPipe) // the rest is not wanted
		u.result <- err
	}()
	go func() {
		buf := make([]byte, chunk)
		for {
			n, err := s.Return.Read(buf)
			_, _ = w.Write(buf[:n]) // fails once Unpack ended: the rest is dropped
			u.drained.add(uint64(n))
			if err != nil {
				u.drained.done <- err
				return
			}
		}
	}()
	return u
}

// finish waits for the whole stream and for Unpack.
func (u *unpacking) finish(ctx context.Context, want uint64) error {
	if err := u.drained.await(ctx, want); err != nil {
		_ = u.pipe.CloseWithError(err)
		return err
	}
	_ = u.pipe.Close()
	select {
	case err := <-u.result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
