// Package vsock is a virtio socket device (virtio 1.2 §5.10) whose host side
// lives in this process: nothing of the host kernel's vhost or AF_VSOCK is
// involved, and no other process reaches the guest, unless a Bridge lets it.
//
// A program in the guest connects to the host (CID 2) at a port that Listen was
// called for, and Accept returns the stream as a *Conn, which is a net.Conn
// with half-close in both directions. Dial opens a stream to a port in the
// guest. Bridge offers both to other processes, on Unix sockets in Firecracker's
// convention. TransportReset ends all streams when the guest was moved.
//
// Nothing is buffered towards the guest: Write copies into buffers the guest
// posted, as its credit allows (§5.10.6.3), and returns when all is there. From
// the guest, each stream buffers BufferSize bytes at most, which is the credit
// it is told. A guest that sends more, or lies about a length, loses the stream
// (RST); one that breaks the rings loses the device until it resets it.
//
// Memory is bounded, whatever the guest does: MaxConns streams of BufferSize
// bytes are 64 MiB, and a Bridge adds two buffers of 32 KiB a stream, 16 MiB. A
// stream that carried nothing yet has no buffer. Streams beyond MaxConns are
// refused (RST); so are those beyond Backlog that a Listener has not accepted.
//
// One mutex guards the device and all its streams. Packets that must go to the
// guest wait as flags on their stream, or, for streams that do not exist, in a
// short list; while that list is full the guest's transmit queue is not served.
package vsock
