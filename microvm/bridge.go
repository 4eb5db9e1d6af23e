package microvm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/vmm/virtio/vsock"
)

// guestCID is every guest's: the socket device's host side is the monitor's own,
// so machines do not see each other.
const guestCID = 3

// streamMap is one stream for each of the agent's ports.
type streamMap map[agentproto.Port]*os.File

// agentStreams makes the streams to the agent, and one for the workload with talk:
// ours are for the session, usable from before the guest is up; theirs for the
// bridge.
func agentStreams(talk bool) (ours, theirs streamMap, err error) {
	ports := agentPorts
	if talk {
		ports = append(ports[:len(ports):len(ports)], workloadPort)
	}
	return socketPairs(ports)
}

func socketPairs(ports []agentproto.Port) (ours, theirs streamMap, err error) {
	ours, theirs = streamMap{}, streamMap{}
	for _, p := range ports {
		kind := unix.SOCK_STREAM
		if p == further {
			kind = unix.SOCK_SEQPACKET
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("socketpair: %w", err), closeStreams(ours), closeStreams(theirs))
		}
		ours[p] = os.NewFile(uintptr(fds[0]), "agent")
		theirs[p] = os.NewFile(uintptr(fds[1]), "agent")
	}
	return ours, theirs, nil
}

func closeStreams(m streamMap) error {
	var errs error
	for _, f := range m {
		errs = errors.Join(errs, f.Close())
	}
	return errs
}

// bridge connects the streams that the agent opens with the session's, one
// connection each; later ones are refused.
type bridge struct {
	device    *vsock.Device
	streams   streamMap // owned
	connected func()    // the control stream, the last one, is there
	copies    sync.WaitGroup
	further   io.Closer // of more
}

// newBridge makes the socket device and listens.
func newBridge(streams streamMap, connected func()) (*bridge, error) {
	b := &bridge{streams: streams, connected: connected}
	var err error
	if b.device, err = vsock.New(guestCID); err != nil {
		return nil, errors.Join(err, closeStreams(streams))
	}
	for p, f := range streams {
		if p == further {
			conn, err := unixConn(f)
			delete(streams, p) // unixConn's
			if err != nil {
				return nil, errors.Join(err, b.close(), closeStreams(streams))
			}
			b.further = conn
			b.copies.Go(func() { b.more(conn) })
			continue
		}
		l, err := b.device.Listen(p.Vsock())
		if err != nil {
			return nil, errors.Join(err, b.close(), closeStreams(streams))
		}
		b.copies.Go(func() { b.serve(p, l, f) })
	}
	return b, nil
}

// serve carries one stream to the end of both directions.
func (b *bridge) serve(p agentproto.Port, l *vsock.Listener, f *os.File) {
	defer func() { _ = f.Close() }()
	conn, err := l.AcceptConn()
	_ = l.Close() // cannot fail
	if err != nil {
		return // there will be no agent
	}
	if p == agentproto.Control && b.connected != nil {
		b.connected()
	}
	carry(conn, f)
}

// carry copies to the end of both directions.
func carry(conn *vsock.Conn, f *os.File) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The session never ends one direction only: its end is the stream's.
		_, _ = io.Copy(conn, f)
		_ = conn.Close()
	}()
	// To the end of what the guest sent, even after the device was closed.
	_, err := io.Copy(f, conn)
	_ = shutdownWrite(f) // the session may have gone
	if err != nil {
		_ = conn.Close() // one of the ends is broken
	}
	<-done
}

// shutdownWrite makes the other end read the end of the stream.
func shutdownWrite(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := conn.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }); cerr != nil {
		err = cerr
	}
	return err
}

// close ends the streams of a machine that runs no more, and returns when what
// was received before has been passed on, or the session has closed its ends.
func (b *bridge) close() error {
	err := b.device.Close()
	if b.further != nil {
		_ = b.further.Close()
	}
	b.copies.Wait()
	return err
}
