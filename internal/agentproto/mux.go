package agentproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Mux carries any number of streams over one, with flow control for each: the
// lab's way to further commands (see ExecPort), whose virtio-serial ports are
// fixed. The host opens streams; the agent takes them.
//
// A frame is the stream's number (uint32), a kind (a byte) and a number (uint32,
// all little endian), which for data is the length of what follows. Data is sent
// only as far as the other end has room for it: window bytes at first, then what
// it gives back with credit.
type Mux struct {
	conn  io.ReadWriteCloser
	taken func(io.ReadWriteCloser) // the agent's end; nil is the host's

	opening sync.Mutex // the other end hears of streams in the order of their numbers
	send    sync.Mutex
	mu      sync.Mutex
	streams map[uint32]*muxStream
	next    uint32
	err     error // why there will be no more
}

type frameKind byte

const (
	muxData   frameKind = 1
	muxCredit frameKind = 2
	muxClose  frameKind = 3

	muxHeader = 9
	muxWindow = 256 << 10
)

// NewMux starts to carry streams over conn, which it closes in the end. taken gets
// the streams that the other end opens, on a goroutine of its own; nil refuses them.
func NewMux(conn io.ReadWriteCloser, taken func(io.ReadWriteCloser)) *Mux {
	m := &Mux{conn: conn, taken: taken, streams: map[uint32]*muxStream{}}
	go m.run()
	return m
}

// Open opens a stream: the other end hears of it by an empty frame. A number that
// comes after a higher one is taken for that of a stream that was closed.
func (m *Mux) Open() (io.ReadWriteCloser, error) {
	m.opening.Lock()
	defer m.opening.Unlock()
	m.mu.Lock()
	if m.err != nil {
		defer m.mu.Unlock()
		return nil, m.err
	}
	m.next++
	s := m.add(m.next)
	m.mu.Unlock()
	if err := m.write(s.id, muxData, 0, nil); err != nil {
		_ = s.Close() // the stream below is gone, which is what is said
		return nil, err
	}
	return s, nil
}

// Close ends all streams.
func (m *Mux) Close() error {
	err := m.conn.Close()
	m.fail(io.ErrClosedPipe)
	return err
}

// add makes a stream. The caller holds mu.
func (m *Mux) add(id uint32) *muxStream {
	s := &muxStream{mux: m, id: id, credit: muxWindow}
	s.cond.L = &s.mu
	m.streams[id] = s
	return s
}

func (m *Mux) run() {
	err := m.receive()
	if errors.Is(err, io.EOF) {
		err = io.ErrClosedPipe
	}
	_ = m.conn.Close()
	m.fail(err)
}

// fail ends every stream.
func (m *Mux) fail(err error) {
	m.mu.Lock()
	if m.err == nil {
		m.err = err
	}
	streams := m.streams
	m.streams = map[uint32]*muxStream{}
	m.mu.Unlock()
	for _, s := range streams {
		s.end()
	}
}

// receive reads frames until the stream below ends, or says what must not be.
func (m *Mux) receive() error {
	var head [muxHeader]byte
	for {
		if _, err := io.ReadFull(m.conn, head[:]); err != nil {
			return err
		}
		id, kind, n := binary.LittleEndian.Uint32(head[:]), frameKind(head[4]), binary.LittleEndian.Uint32(head[5:])
		s := m.find(id, kind == muxData)
		switch kind {
		case muxData:
			if err := m.data(s, n); err != nil {
				return err
			}
		case muxCredit:
			if s != nil {
				s.grant(n)
			}
		case muxClose:
			if s != nil {
				s.end()
			}
		default:
			return fmt.Errorf("mux: frame of kind %d", kind)
		}
	}
}

func (m *Mux) find(id uint32, open bool) *muxStream {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.streams[id]
	if s == nil && open && m.taken != nil && id > m.next {
		m.next = id
		s = m.add(id)
		go m.taken(s)
	}
	return s
}

// data reads n bytes for s; nil discards them: it was closed.
func (m *Mux) data(s *muxStream, n uint32) error {
	if n > muxWindow || s != nil && !s.room(n) {
		return fmt.Errorf("mux: %d bytes more than there is room for", n)
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(m.conn, buf); err != nil {
		return err
	}
	if s != nil {
		s.put(buf)
	}
	return nil
}

func (m *Mux) write(id uint32, kind frameKind, n uint32, data []byte) error {
	frame := binary.LittleEndian.AppendUint32(make([]byte, 0, muxHeader+len(data)), id)
	frame = binary.LittleEndian.AppendUint32(append(frame, byte(kind)), n)
	m.send.Lock()
	defer m.send.Unlock()
	_, err := m.conn.Write(append(frame, data...))
	return err
}

// muxStream is one stream. Closing it ends both directions; what came before can
// still be read at the other end.
type muxStream struct {
	mux *Mux
	id  uint32

	mu     sync.Mutex
	cond   sync.Cond
	got    []byte
	read   uint32 // since the last credit
	credit uint32 // what may be sent
	closed bool   // by us
	ended  bool   // by the other end
}

func (s *muxStream) Read(p []byte) (int, error) {
	s.mu.Lock()
	for len(s.got) == 0 && !s.closed && !s.ended {
		s.cond.Wait()
	}
	if s.closed || len(s.got) == 0 {
		s.mu.Unlock()
		return 0, io.EOF
	}
	n := copy(p, s.got)
	if s.got = s.got[n:]; len(s.got) == 0 {
		s.got = nil
	}
	s.read += uint32(n)
	back := uint32(0)
	if s.read >= muxWindow/2 && !s.ended {
		back, s.read = s.read, 0
	}
	s.mu.Unlock()
	if back > 0 {
		_ = s.mux.write(s.id, muxCredit, back, nil) // an end is seen by the next read
	}
	return n, nil
}

func (s *muxStream) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n, err := s.reserve(len(p))
		if err == nil {
			err = s.mux.write(s.id, muxData, n, p[:n])
		}
		if err != nil {
			return written, err
		}
		written, p = written+int(n), p[n:]
	}
	return written, nil
}

// reserve waits until something may be sent, and returns how much of want.
func (s *muxStream) reserve(want int) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.credit == 0 && !s.closed && !s.ended {
		s.cond.Wait()
	}
	if s.closed || s.ended {
		return 0, io.ErrClosedPipe
	}
	n := min(s.credit, uint32(min(want, chunk)))
	s.credit -= n
	return n, nil
}

func (s *muxStream) Close() error {
	s.mu.Lock()
	closed, ended := s.closed, s.ended
	s.closed, s.got = true, nil
	s.cond.Broadcast()
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.mux.mu.Lock()
	delete(s.mux.streams, s.id)
	s.mux.mu.Unlock()
	if ended {
		return nil
	}
	return s.mux.write(s.id, muxClose, 0, nil)
}

func (s *muxStream) room(n uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)+int(n)+int(s.read) <= muxWindow
}

func (s *muxStream) put(data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.got = append(s.got, data...)
		s.cond.Broadcast()
	}
}

func (s *muxStream) grant(n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credit = min(s.credit+min(n, muxWindow), muxWindow)
	s.cond.Broadcast()
}

func (s *muxStream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.cond.Broadcast()
}
