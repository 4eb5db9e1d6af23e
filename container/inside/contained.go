package inside

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/script"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/workload"
)

// Contained makes a container of our own runs from outside, as Direct makes one of a
// bundle, and does what initMain and execMain do in processes of Go's. PID 1 is a
// script: it makes a child, which goes on with the script until it is the workload,
// in memory that is PID 1's until then (CLONE_VM, CLONE_VFORK), and then waits for
// children until that one has ended. Why it ended is in the script's memory.
type Contained struct {
	direct  *Direct
	execute *handshake.Execute

	proc   script.Addr // words: a descriptor of procfs,
	pid    script.Addr // the workload's number in the container,
	sent   script.Addr // struct msghdr, of a pidfd of it,
	pidfd  script.Addr // which is there,
	reaped script.Addr // the child of PID 1 that ended last,
	status script.Addr // and how,
	began  script.Addr // two: when the workload was executed

	workload int // a pidfd
}

// The descriptors that PID 1 starts with, behind its streams.
const (
	containedConn = 3 + iota
	containedScript
	containedNull
	containedProgram
	containedSpare // the v2 group, if there is one, the tasks files, that of the limit of processes
)

// workloadPID is the number of PID 1's first child.
const workloadPID = 2

// toldExecuted is what PID 1 tells when the workload was executed.
const toldExecuted = 'x'

// NewContained prepares the script of a PID 1; conn is our end of its socket.
func NewContained(conn int) (*Contained, error) {
	s, err := script.New()
	if err != nil {
		return nil, err
	}
	c := &Contained{direct: &Direct{script: s, conn: conn, fd: containedConn}, workload: -1}
	s.Call(unix.SYS_CLOSE, script.Val(containedScript)) // it is mapped
	s.Call(unix.SYS_CLOSE, script.Val(containedProgram))
	s.Step("mount")
	c.proc = c.direct.procfs(defaultMounts(false, false, 0)[0])
	c.direct.awaitFiles()
	if err := s.Flush(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return c, nil
}

// Files are those that PID 1 starts with: its streams, its end of the socket, and
// the groups' behind ours. The caller closes the program, which is to be
// executed.
func (c *Contained) Files(streams []*os.File, end, null *os.File, groups []*os.File) (files []*os.File, program *os.File, err error) {
	if program, err = script.Program(containedScript); err != nil {
		return nil, nil, err
	}
	files = append(append(files, streams...), end, c.direct.script.File(), null, program)
	return append(files, groups...), program, nil
}

// Close lets go of everything.
func (c *Contained) Close() error {
	if c.workload >= 0 {
		_ = unix.Close(c.workload)
		c.workload = -1
	}
	return c.direct.script.Close()
}

// Build makes the container's file system on the calling thread, which is in the
// namespaces but that of processes, and has the script go on until the workload is
// executed. It returns the phases that were passed; an Exit when there is nothing to
// execute.
func (c *Contained) Build(pidfd int, s *handshake.Setup, e *handshake.Execute) ([]handshake.Stamp, *workload.Exit, error) {
	d := c.direct
	c.execute, d.plan = e, &handshake.Plan{Process: processOf(e)}
	if err := d.await(toldMounts); err != nil {
		return nil, nil, err
	}
	proc, err := d.take(pidfd, c.proc)
	if err != nil {
		return nil, nil, &handshake.StepError{Step: "mount", Err: err}
	}
	b := newBuilder(s, handshake.Conn{})
	b.files.Mounts[0].FD = proc // see NewContained
	stamps, err := b.build()
	if err != nil {
		return nil, nil, err
	}
	path, exit, err := launch.Prepare(e.Spec)
	if err != nil {
		return nil, nil, &handshake.StepError{Step: "prepare the workload", Err: err}
	}
	if exit != nil {
		return stamps, exit, nil
	}
	if err := readOnlyRoot(e.Spec.ReadOnly); err != nil {
		return nil, nil, &handshake.StepError{Step: "make the root read-only", Err: err}
	}
	if err := c.release(path, s.CgroupFD); err != nil {
		return nil, nil, err
	}
	exit, err = c.executed()
	return append(stamps, handshake.Stamp{Phase: workload.PhaseWorkload, Ns: c.executedAt()}), exit, err
}

// processOf is what restrict and becomeUser make of e.
func processOf(e *handshake.Execute) *handshake.Process {
	p := &handshake.Process{
		Argv: e.Spec.Argv, Env: launch.Environ(e.Spec), UID: e.Spec.User.UID, GID: e.Spec.User.GID, Groups: e.Spec.User.Groups,
		Bounding: e.Caps, Rlimits: e.Spec.Rlimits, NoNewPrivs: !e.NewPrivileges, Seccomp: e.Seccomp, Landlock: e.Landlock,
	}
	if p.UID == 0 {
		p.Effective, p.Permitted = e.Caps, e.Caps
	}
	return p
}

// release writes the rest of the script, and has it carried out.
func (c *Contained) release(path string, v2 bool) error {
	d := c.direct
	ruleset, rights, err := d.landlock()
	if err != nil {
		return err
	}
	if ruleset >= 0 {
		defer func() { _ = unix.Close(ruleset) }()
	}
	c.clone(v2)
	c.reap(v2, ruleset >= 0)
	if err := c.become(path, v2, ruleset >= 0); err != nil {
		return err
	}
	return d.goOn(rights)
}

// executed waits until the workload is executed, or is known not to be.
func (c *Contained) executed() (*workload.Exit, error) {
	d := c.direct
	var said [12]byte
	n, file, err := receive(d.conn, said[:1])
	switch {
	case err != nil && !errors.Is(err, unix.ECONNRESET):
		return nil, err
	case n == 1 && said[0] == toldExecuted:
		c.workload = file
		if pid, err := d.script.Word(c.pid); err != nil || pid != workloadPID {
			return nil, &handshake.StepError{Step: "start the workload", Err: errors.Join(err, errors.New("it is not PID 1's first child"))}
		}
		return nil, nil
	case n == 1:
		if n, err := readFull(d.conn, said[1:]); err != nil || n < len(said)-1 {
			break
		}
		code := int64(binary.NativeEndian.Uint64(said[4:]))
		if code < 0 {
			return launch.ExecFailed(c.execute.Spec.Argv[0], unix.Errno(-code)), nil
		}
		return nil, ScriptFailed("", code)
	}
	return nil, d.failed()
}

// executedAt is when that was, as of workload.Now; 0 when it was not.
func (c *Contained) executedAt() int64 {
	s, err := c.direct.script.Word(c.began)
	if err != nil {
		return 0
	}
	ns, err := c.direct.script.Word(c.began + 8)
	if err != nil {
		return 0
	}
	return int64(s)*1e9 + int64(ns)
}

// receive reads some bytes, and the descriptor that may come with them; -1 when none
// does.
func receive(fd int, b []byte) (n, file int, err error) {
	control := make([]byte, unix.CmsgSpace(4))
	var length int
	for {
		n, length, _, _, err = unix.Recvmsg(fd, b, control, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil || length == 0 {
		return n, -1, err
	}
	file, err = handshake.Right(control[:length])
	return n, file, err
}

// readFull reads until b is full or the other end is closed.
func readFull(fd int, b []byte) (int, error) {
	for n := 0; ; {
		k, err := unix.Read(fd, b[n:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return n, err
		default:
			n += k
			if k == 0 || n == len(b) {
				return n, nil
			}
		}
	}
}

// AwaitEnd waits for the end of PID 1, without keeping a thread in the kernel: where
// Go has one processor, that would stand still until the runtime's monitor looks.
func (c *Contained) AwaitEnd() {
	fd, err := unix.FcntlInt(uintptr(c.direct.conn), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		_, _ = readFull(c.direct.conn, make([]byte, 1)) // PID 1 says nothing more
		return
	}
	_ = unix.SetNonblock(fd, true) // of a socket: cannot fail
	f := os.NewFile(uintptr(fd), "handshake")
	defer func() { _ = f.Close() }()
	for b := make([]byte, 1); err == nil; {
		_, err = f.Read(b)
	}
}

// Signal sends a signal to the workload, which may have ended.
func (c *Contained) Signal(sig unix.Signal) {
	_ = unix.PidfdSendSignal(c.workload, sig, nil, 0)
}

// Exit is how the workload ended; nil when PID 1 ended before it: it was killed, and
// the workload with it.
func (c *Contained) Exit() (*workload.Exit, error) {
	pid, err := c.direct.script.Word(c.reaped)
	if err != nil || pid != workloadPID {
		return nil, err
	}
	word, err := c.direct.script.Word(c.status)
	if err != nil {
		return nil, err
	}
	return exitOf(unix.WaitStatus(word)), nil
}
