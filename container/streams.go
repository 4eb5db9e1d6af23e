package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/terminal"
	"github.com/duplex-run/duplex/internal/workload"
)

// streams connects the workload's standard streams to the caller's.
type streams struct {
	files   [3]*os.File // what the child gets
	owned   []*os.File  // those of files that are ours to close
	ends    []*os.File  // our ends of pipes, and the terminal
	slave   *os.File    // keeps the terminal alive until init has ended
	master  *os.File
	copiers int // output copiers under way
	copied  chan error
}

// openStreams decides, stream by stream: an *os.File goes to the workload as it
// is, anything else through a pipe and a goroutine. With a TTY the workload's
// process opens its own streams.
func openStreams(spec workload.Spec, stdio workload.Stdio) (*streams, error) {
	s := &streams{copied: make(chan error, 3)}
	err := s.open(spec, stdio)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the streams: %w", err), s.close())
	}
	return s, nil
}

func (s *streams) open(spec workload.Spec, stdio workload.Stdio) (err error) {
	if !spec.Interactive {
		stdio.In = nil
	}
	if spec.TTY {
		stdio.In, stdio.Out, stdio.Err = nil, nil, nil
	}
	if s.files[0], err = s.input(stdio.In); err != nil {
		return err
	}
	if s.files[1], err = s.output(stdio.Out); err != nil {
		return err
	}
	if stdio.Err != nil && sameWriter(stdio.Out, stdio.Err) {
		s.files[2] = s.files[1] // one pipe, so that the writer is used by one goroutine
		return nil
	}
	s.files[2], err = s.output(stdio.Err)
	return err
}

func sameWriter(a, b io.Writer) (same bool) {
	defer func() {
		if recover() != nil { // the dynamic types are not comparable
			same = false
		}
	}()
	return a == b
}

func (s *streams) input(r io.Reader) (*os.File, error) {
	if f, ok := r.(*os.File); ok && f != nil {
		return f, nil
	}
	if r == nil {
		return s.null()
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.owned = append(s.owned, pr)
	s.ends = append(s.ends, pw)
	go func() {
		// An error is the workload not reading, which is its affair. When the
		// run ends first, this goroutine stays until r's next Read returns.
		_, _ = io.Copy(pw, r)
		_ = pw.Close()
	}()
	return pr, nil
}

func (s *streams) output(w io.Writer) (*os.File, error) {
	if f, ok := w.(*os.File); ok && f != nil {
		return f, nil
	}
	if w == nil {
		return s.null()
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.owned = append(s.owned, pw)
	s.ends = append(s.ends, pr)
	s.copyOut(w, pr)
	return pw, nil
}

func (s *streams) null() (*os.File, error) {
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		s.owned = append(s.owned, f)
	}
	return f, err
}

// copyOut copies until the last writer is gone. When w fails, the workload
// gets SIGPIPE, as it would writing to w itself.
func (s *streams) copyOut(w io.Writer, r *os.File) {
	s.copiers++
	go func() {
		_, err := io.Copy(w, r)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = copyRest(w, r)
		}
		_ = r.Close()
		if errors.Is(err, unix.EIO) || errors.Is(err, unix.EPIPE) {
			err = nil // a terminal's way to say EOF; a reader that left
		}
		s.copied <- err
	}()
}

func (s *streams) child() []*os.File { return s.files[:] }

// closeChild closes our copies of the child's streams, so that pipes end with
// the workload.
func (s *streams) closeChild() {
	for _, f := range s.owned {
		_ = f.Close()
	}
	s.owned = nil
}

// attachTerminal starts to copy between the caller's streams and the terminal.
func (s *streams) attachTerminal(master *os.File, spec workload.Spec, stdio workload.Stdio) error {
	if master == nil || s.master != nil {
		return errors.New("attach the terminal: no descriptor, or two")
	}
	s.master = master
	s.ends = append(s.ends, master)
	slave, err := openPeer(master)
	if err != nil {
		return fmt.Errorf("attach the terminal: %w", err)
	}
	s.slave = slave
	out := stdio.Out
	if out == nil {
		out = io.Discard
	}
	s.copyOut(out, master)
	if spec.Interactive && stdio.In != nil {
		go func() { _, _ = io.Copy(master, stdio.In) }() // see input
	}
	return nil
}

func (s *streams) resize(size workload.WinSize) {
	if s.master == nil {
		return
	}
	if raw, err := s.master.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = terminal.SetSize(int(fd), size) }) // the terminal may be closed already
	}
}

// settle has the copying end once what was written so far is copied: others that
// write to the streams may go on, but nobody listens to them any more.
func (s *streams) settle() error {
	for _, f := range s.ends {
		_ = f.SetReadDeadline(time.Unix(1, 0)) // all of them can, and one that is closed needs none
	}
	return s.drain()
}

// copyRest copies what can be read without waiting.
func copyRest(w io.Writer, r *os.File) error {
	raw, err := r.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	cerr := raw.Control(func(fd uintptr) {
		for {
			var n int
			if n, err = unix.Read(int(fd), buf); errors.Is(err, unix.EINTR) {
				continue
			}
			if n <= 0 {
				if errors.Is(err, unix.EAGAIN) {
					err = nil
				}
				return
			}
			if _, err = w.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	return errors.Join(cerr, err)
}

// drain waits for the output copiers; init has ended, and every writer with it.
func (s *streams) drain() error {
	if s.slave != nil {
		_ = s.slave.Close()
		s.slave = nil
	}
	var errs []error
	for ; s.copiers > 0; s.copiers-- {
		if err := <-s.copied; err != nil {
			errs = append(errs, fmt.Errorf("copy the workload's output: %w", err))
		}
	}
	return errors.Join(errs...)
}

// close closes what is still open; it is idempotent.
func (s *streams) close() error {
	s.closeChild()
	for _, f := range s.ends {
		_ = f.Close() // a copier may have closed it
	}
	s.ends = nil
	return s.drain()
}

// openPeer opens the slave of a terminal that is in use.
func openPeer(master *os.File) (*os.File, error) {
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	slave := -1
	var perr error
	if err := raw.Control(func(fd uintptr) { slave, perr = terminal.Peer(int(fd)) }); err != nil {
		return nil, err
	}
	if perr != nil {
		return nil, perr
	}
	return os.NewFile(uintptr(slave), "terminal-slave"), nil
}
