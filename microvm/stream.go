package microvm

import (
	"sync/atomic"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

// stream is one byte stream with the agent, usable from before the guest is up:
// the first Read or Write waits until the agent connects. One connection is
// accepted, and later ones are refused.
type stream struct {
	listener  *vsock.Listener
	ready     chan struct{} // conn or err is set
	conn      *vsock.Conn
	err       error
	connected atomic.Bool
}

// listen opens the ports that the agent connects to.
func listen(d *vsock.Device) (map[agentproto.Port]*stream, error) {
	out := map[agentproto.Port]*stream{}
	for _, p := range []agentproto.Port{agentproto.Control, agentproto.Stdin, agentproto.Stdout, agentproto.Stderr} {
		l, err := d.Listen(p.Vsock())
		if err != nil {
			return nil, err // the listeners go with the device
		}
		s := &stream{listener: l, ready: make(chan struct{})}
		out[p] = s
		go s.accept()
	}
	return out, nil
}

func (s *stream) accept() {
	s.conn, s.err = s.listener.AcceptConn()
	s.connected.Store(s.err == nil)
	close(s.ready)
	_ = s.listener.Close() // cannot fail
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	<-s.ready
	if s.err != nil {
		return 0, s.err
	}
	return s.conn.Read(p)
}

// Write implements io.Writer.
func (s *stream) Write(p []byte) (int, error) {
	<-s.ready
	if s.err != nil {
		return 0, s.err
	}
	return s.conn.Write(p)
}

// Close implements io.Closer. It ends a wait for the agent.
func (s *stream) Close() error {
	_ = s.listener.Close() // cannot fail
	<-s.ready
	if s.err != nil {
		return nil // there never was a connection
	}
	return s.conn.Close()
}
