package inside

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/script"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/workload"
)

// become is the second part of the script: what processSteps and execute do. The
// order is theirs.
func (d *Direct) become(o *oci, landlock bool) error {
	p, s := d.plan.Process, d.script
	s.Step("make a session keyring")
	switch name := d.plan.Keyring; name {
	case handshake.NoKeyring:
	default:
		s.Add(script.Call{Number: unix.SYS_KEYCTL, Ignore: true,
			Args: []script.Arg{script.Val(unix.KEYCTL_JOIN_SESSION_KEYRING), script.Val(s.String(name))}})
	}
	d.resetSignals()
	s.Call(unix.SYS_UMASK, script.Val(p.Umask))
	if err := d.raiseRlimits(); err != nil {
		return err
	}
	d.restrict(landlock)
	if err := d.user(); err != nil {
		return err
	}
	d.enterCwd()
	s.Step("wait for start")
	d.tell(toldReady)
	d.execute(o.path, d.awaitStart())
	return nil
}

func (d *Direct) resetSignals() {
	s := d.script
	s.Step("reset the signals")
	action := s.Words(0, 0, 0, 0) // struct sigaction, of SIG_DFL
	for n := unix.Signal(1); n <= 64; n++ {
		// It has what this process had when it forked, but no handlers.
		if ignored(n) {
			s.Call(unix.SYS_RT_SIGACTION, script.Val(int(n)), script.Val(action), script.Val(0), script.Val(8))
		}
	}
}

// raiseRlimits is for the limits what function raiseRlimits is.
func (d *Direct) raiseRlimits() error {
	d.script.Step("raise the resource limits")
	for _, l := range d.plan.Process.Rlimits {
		var now unix.Rlimit
		if err := unix.Prlimit(0, l.Resource, nil, &now); err != nil {
			return fmt.Errorf("read limit %d: %w", l.Resource, err)
		}
		if l.Hard > now.Max {
			d.prlimit(l.Resource, now.Cur, l.Hard, "")
		}
	}
	return nil
}

func (d *Direct) prlimit(resource int, soft, hard uint64, fail script.Label) {
	d.script.Add(script.Call{Number: unix.SYS_PRLIMIT64, Fail: fail, Args: []script.Arg{script.Val(0), script.Val(resource),
		script.Val(d.script.Words(soft, hard)), script.Val(0)}})
}

func (d *Direct) setRlimits(fail script.Label) {
	d.script.Step("set the resource limits")
	for _, l := range d.plan.Process.Rlimits {
		d.prlimit(l.Resource, l.Soft, l.Hard, fail)
	}
}

// restrict gives up what is not the user's.
func (d *Direct) restrict(landlock bool) {
	p, s := d.plan.Process, d.script
	if p.NoNewPrivs {
		s.Step("set no_new_privs")
		s.Call(unix.SYS_PRCTL, script.Val(unix.PR_SET_NO_NEW_PRIVS), script.Val(1), script.Val(0), script.Val(0), script.Val(0))
	}
	s.Step("close descriptors")
	s.Call(unix.SYS_CLOSE_RANGE, script.Val(3+p.Preserve), script.Val(uint32(math.MaxUint32)), script.Val(unix.CLOSE_RANGE_CLOEXEC))
	if landlock {
		s.Step("enter the Landlock domain")
		s.Call(unix.SYS_LANDLOCK_RESTRICT_SELF, script.Of(d.ruleset), script.Val(0))
	}
	if !p.NoNewPrivs && len(p.Seccomp) > 0 { // see earlySeccomp
		d.setRlimits("")
		p.Rlimits = nil
		d.seccomp("")
	}
	s.Step("drop capabilities")
	for c := range 64 {
		if p.Bounding&(1<<c) != 0 {
			continue
		}
		have, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil {
			break // EINVAL: the kernel has no more
		}
		if have == 1 { // as this thread, which starts it
			s.Call(unix.SYS_PRCTL, script.Val(unix.PR_CAPBSET_DROP), script.Val(c), script.Val(0), script.Val(0), script.Val(0))
		}
	}
}

func (d *Direct) seccomp(fail script.Label) {
	p, s := d.plan.Process, d.script
	s.Step("install the seccomp filter")
	prog := s.Words(uint64(len(p.Seccomp)/unix.SizeofSockFilter), uint64(s.Bytes(p.Seccomp))) // struct sock_fprog
	s.Add(script.Call{Number: unix.SYS_SECCOMP, Fail: fail, Args: []script.Arg{script.Val(unix.SECCOMP_SET_MODE_FILTER),
		script.Val(p.SeccompFlags), script.Val(prog)}})
}

// user takes the ids and the capabilities: becomeProcessUser and setAllCaps.
func (d *Direct) user() error {
	p, s := d.plan.Process, d.script
	s.Step("become the user")
	keep := func(on int) {
		s.Call(unix.SYS_PRCTL, script.Val(unix.PR_SET_KEEPCAPS), script.Val(on), script.Val(0), script.Val(0), script.Val(0))
	}
	keep(1)
	var groups []byte
	list := launch.Groups(workload.User{UID: p.UID, GID: p.GID, Groups: p.Groups})
	for _, g := range list {
		groups = binary.NativeEndian.AppendUint32(groups, uint32(g))
	}
	s.Call(unix.SYS_SETGROUPS, script.Val(len(list)), script.Val(s.Bytes(groups)))
	s.Call(unix.SYS_SETRESGID, script.Val(p.GID), script.Val(p.GID), script.Val(p.GID))
	s.Call(unix.SYS_SETRESUID, script.Val(p.UID), script.Val(p.UID), script.Val(p.UID))
	keep(0)
	s.Step("set the capabilities")
	hdr, data, err := allCaps(p)
	if err != nil {
		return err
	}
	var sets []byte
	for _, set := range data {
		for _, word := range []uint32{set.Effective, set.Permitted, set.Inheritable} {
			sets = binary.NativeEndian.AppendUint32(sets, word)
		}
	}
	s.Call(unix.SYS_CAPSET, script.Val(s.Words(uint64(hdr.Version))), script.Val(s.Bytes(sets)))
	for c := range 64 {
		if p.Ambient&(1<<c) != 0 {
			s.Call(unix.SYS_PRCTL, script.Val(unix.PR_CAP_AMBIENT), script.Val(unix.PR_CAP_AMBIENT_RAISE), script.Val(c), script.Val(0), script.Val(0))
		}
	}
	return nil
}

// enterCwd is enterAsUser.
func (d *Direct) enterCwd() {
	s := d.script
	s.Step("enter the working directory")
	buf := s.Bytes(make([]byte, unix.PathMax))
	getcwd := func(c script.Call) {
		c.Number, c.Args = unix.SYS_GETCWD, []script.Arg{script.Val(buf), script.Val(unix.PathMax)}
		s.Add(c)
	}
	getcwd(script.Call{Tolerate: unix.ENOENT, Fail: "there"}) // denied: it stays
	s.Add(script.Call{Number: unix.SYS_CHDIR, Args: []script.Arg{script.Val(s.String(path.Clean("/" + d.plan.Process.Cwd)))}, Tolerate: unix.EACCES})
	getcwd(script.Call{})
	s.Branch(buf, 0xff, '/', "there")
	s.Call(unix.SYS_EXIT_GROUP, script.Val(125)) // outside the root
	s.Label("there")
}

// awaitStart is function awaitStart; it returns the word with the descriptor of the
// connection of who starts the container.
func (d *Direct) awaitStart() script.Addr {
	s := d.script
	conn, n, buf := s.Words(0), s.Words(0), s.Bytes(make([]byte, 512))
	listener := script.Val(d.fd + 2)
	s.Call(unix.SYS_CLOSE, script.Val(d.fd))
	s.Label("accept")
	s.Add(script.Call{Number: unix.SYS_ACCEPT4, Args: []script.Arg{listener, script.Val(0), script.Val(0), script.Val(unix.SOCK_CLOEXEC)},
		Result: conn, Tolerate: unix.EINTR, Then: "accept"})
	s.Add(script.Call{Number: unix.SYS_READ, Args: []script.Arg{script.Of(conn), script.Val(buf), script.Val(512)}, Result: n, Fail: "gone"})
	s.Branch(n, math.MaxUint64, 0, "gone") // it changed its mind, or was killed
	s.Jump("start")
	s.Label("gone")
	s.Call(unix.SYS_CLOSE, script.Of(conn))
	s.Jump("accept")
	s.Label("start")
	s.Call(unix.SYS_CLOSE, listener)
	return conn
}

// What a script says that cannot go on, beside the negative error of execve(2).
const (
	codeLimits = 1 + iota
	codeSeccomp
)

// ScriptFailed is the error that a script's code stands for, which was to execute
// the program name.
func ScriptFailed(name string, code int64) error {
	refused := errors.New("the kernel refused it")
	switch code {
	case codeLimits:
		return &handshake.StepError{Step: "set the resource limits", Err: refused}
	case codeSeccomp:
		return &handshake.StepError{Step: "install the seccomp filter", Err: refused}
	}
	return &handshake.StepError{Step: "exec", Err: cannotExecute(launch.ExecFailed(name, unix.Errno(-code)))}
}

// execute executes the program at path; who is at the other end of the connection is
// told why not.
func (d *Direct) execute(path string, conn script.Addr) {
	p, s := d.plan.Process, d.script
	// What is sent: four bytes in front of the code.
	said := s.Words(handshake.ScriptHead<<32, 0)
	code := said + 8
	d.setRlimits("no limits")
	if p.NoNewPrivs && len(p.Seccomp) > 0 {
		d.seccomp("no filter")
	}
	s.Step("exec")
	s.Add(script.Call{Number: unix.SYS_EXECVE, Args: []script.Arg{script.Val(s.String(path)), script.Val(s.Strings(p.Argv)), script.Val(s.Strings(p.Env))},
		Result: code, Ignore: true})
	tell := func(said script.Addr) {
		s.Add(script.Call{Number: unix.SYS_WRITE, Args: []script.Arg{script.Of(conn), script.Val(said + 4), script.Val(12)}, Ignore: true})
		s.Call(unix.SYS_EXIT_GROUP, script.Val(workload.StatusError))
	}
	tell(said)
	s.Label("no limits")
	tell(s.Words(handshake.ScriptHead<<32, codeLimits))
	s.Label("no filter")
	tell(s.Words(handshake.ScriptHead<<32, codeSeccomp))
}
