// Package agentproto is how the host talks to the guest agent, which is PID 1 in
// both kinds of machine: the microVM (over AF_VSOCK) and the lab (over
// virtio-serial ports).
//
// There are separate byte streams, so that back-pressure on one blocks no
// other: control, stdin, stdout and stderr, and in the lab a fifth for the
// files that come back. Ports names them for both transports. The agent opens
// all of them before it says hello.
//
// Control carries messages, each a uint32 (little endian) length and that many
// bytes of JSON (Message):
//
//	agent                      host
//	hello{version}       ->
//	                     <-    start{spec, root, ...}
//	started{pid}         ->          or failed{step, error}, or exit (126, 127)
//	                     <-    signal, resize, stdin_eof, closed   (any number)
//	count{pids}          ->    count                               (any number)
//	log{text}            ->          only when the kernel command line asked for it
//	exit{code, bytes}    ->
//	returned{bytes}      ->          only when start asked for files
//
// The agent powers the machine off when the control stream ends.
//
// Further commands in a running machine (RunFurther) are sessions of their own, over streams
// that the host opens (ExecPort): hello, start, started, and so on, with the same
// messages. The end of such a control stream kills that command only.
//
// A machine that is to be saved as a snapshot (SnapshotKey) has no stream when it is:
// the agent does all that does not depend on a run, asks by a mark to be saved, and
// opens its streams when it is restored. Its hello says restored, and Start.Clone has
// what must differ between the clones of one snapshot.
//
// Byte streams have no end of their own: stdin_eof says how many bytes came
// before it, exit how many the agent wrote to stdout and stderr. The host waits
// until it has them all, so nothing is lost, whatever the transport does at its
// end. A host whose stdout is closed says so (closed), and the workload gets the
// SIGPIPE it would get from a shell pipeline.
//
// Nothing the guest sends is trusted. A message is bounded (MaxFromGuest),
// parsed strictly and validated for its direction before anything acts on it; a
// guest that lies ends its own session with an error and costs the host nothing
// else. Session is the host's end, for both transports; the agent's end is
// initramfs/guest.
package agentproto
