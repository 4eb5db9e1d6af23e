package inside

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/script"
)

// Direct makes an OCI container from outside. A thread of its creator, in the
// container's namespaces but those of processes, makes the file system; the
// container's first process has no runtime, only a script: it makes the mounts that
// belong to its namespaces, gives up its rights, waits for start and becomes the
// program. It does what ociMain does in a process of Go's, and nothing more than
// CanDirect allows.
type Direct struct {
	plan   *handshake.Plan
	script *script.Script
	conn   int // our end of the process's socket
	fd     int // its own end there; behind it what NewDirect says
	tasks  int
	made   []made
	// cgroups are words, by hierarchy: the descriptor of its mount, or an error.
	cgroups map[string]script.Addr
	ruleset script.Addr // a word, the descriptor of the Landlock domain's rules
}

// made is a mount of the process: its number in the plan, and a word with its
// descriptor.
type made struct {
	mount int
	fd    script.Addr
}

// CanDirect reports whether Direct can carry p out; else it is for ociMain.
func CanDirect(p *handshake.Plan) bool {
	f, u := p.Files, p.Process
	if f == nil || u == nil || len(p.Join)+len(p.CreateContainer)+len(p.StartContainer) > 0 {
		return false
	}
	if !f.NewNamespace || f.User || u.Terminal || u.Notify || u.NoGroups || u.AppArmor != "" ||
		u.Scheduler != nil || u.IOPriority != 0 || u.Personality != 0 || u.MemoryPolicy != nil || len(u.CPUs) > 0 {
		return false
	}
	for _, m := range f.Mounts {
		if m.FD > 0 || m.CopyUp { // a copy is the container's memory
			return false
		}
	}
	return true
}

// NewDirect prepares p for a process whose end of a socket is descriptor fd, whose
// script is the next one, which listens at the one after, whose executable is behind
// that, and behind it the tasks files of so many v1 groups; conn is the other end.
// The caller closes it.
func NewDirect(p *handshake.Plan, conn, fd, tasks int) (*Direct, error) {
	s, err := script.New()
	if err != nil {
		return nil, err
	}
	d := &Direct{plan: p, script: s, conn: conn, fd: fd, tasks: tasks}
	d.ownMounts()
	if err := s.Flush(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return d, nil
}

// Script is what the process has as its descriptor behind the socket.
func (d *Direct) Script() *os.File { return d.script.File() }

// Program is what the process executes. The caller closes it.
func (d *Direct) Program() (*os.File, error) { return script.Program(d.fd + 1) }

// Close lets go of the script.
func (d *Direct) Close() error { return d.script.Close() }

// ownMounts is the first part of the script: mounts of file systems that show the
// namespace of who makes them, the process's own. They stay detached.
func (d *Direct) ownMounts() {
	s := d.script
	s.Call(unix.SYS_CLOSE, script.Val(d.fd+1)) // it is mapped
	s.Call(unix.SYS_CLOSE, script.Val(d.fd+3))
	d.enterCgroup()
	for i, m := range d.plan.Files.Mounts {
		s.Step("mount")
		switch {
		case m.Type == "proc":
			d.made = append(d.made, made{i, d.procfs(m)})
		case (m.Type == "cgroup" || m.Type == "cgroup2") && d.plan.CgroupNamespace && d.cgroups == nil:
			d.mountCgroups(m)
		}
	}
	d.awaitFiles()
}

// procfs has the process mount one of its namespace; the word is its descriptor.
func (d *Direct) procfs(m handshake.Mount) script.Addr {
	fd := d.script.Words(0)
	options := []option{{"source", m.Source}}
	if m.Source == "" {
		options[0].value = m.Type
	}
	for _, o := range m.Data {
		options = append(options, option{o.Key, o.Value})
	}
	d.newMount("proc", m.Set, fd, false, options)
	return fd
}

// awaitFiles has the process wait for what builds the file system.
func (d *Direct) awaitFiles() {
	s := d.script
	s.Step("wait for the file system")
	d.tell(toldMounts)
	// The go-ahead comes with the rules of the Landlock domain, if there is one.
	buf, control := s.Words(0), s.Bytes(make([]byte, unix.CmsgSpace(4)))
	vector := s.Words(uint64(buf), 1)
	header := s.Words(0, 0, uint64(vector), 1, uint64(control), uint64(unix.CmsgSpace(4)), 0)
	n := s.Words(0)
	s.Add(script.Call{Number: unix.SYS_RECVMSG, Args: []script.Arg{script.Val(d.fd), script.Val(header),
		script.Val(unix.MSG_CMSG_CLOEXEC)}, Result: n})
	s.Branch(n, ^uint64(0), 1, "go")
	s.Call(unix.SYS_EXIT_GROUP, script.Val(125)) // its creator is gone
	s.Label("go")
	d.ruleset = control + script.Addr(unix.CmsgLen(0))
}

// enterCgroup has the process enter its v1 groups, whose files are behind its
// executable; into v2 it was cloned.
func (d *Direct) enterCgroup() {
	s := d.script
	s.Step("enter the cgroup")
	for i := range d.tasks {
		fd := script.Val(d.fd + 4 + i)
		s.Call(unix.SYS_WRITE, fd, script.Val(s.Bytes([]byte("0"))), script.Val(1))
		s.Call(unix.SYS_CLOSE, fd)
	}
	if d.plan.CgroupNamespace {
		s.Call(unix.SYS_UNSHARE, script.Val(unix.CLONE_NEWCGROUP))
	}
}

func (d *Direct) mountCgroups(m handshake.Mount) {
	d.cgroups = map[string]script.Addr{}
	mount := func(name string, attrs uint64) {
		d.cgroups[name] = d.script.Words(0)
		fstype, options := cgroupOptions(name)
		d.newMount(fstype, attrs, d.cgroups[name], true, options)
	}
	if d.plan.Files.V2 != "" {
		mount("cgroup2", m.Set)
		return
	}
	for _, v1 := range d.plan.Files.V1 {
		mount(v1.Name, v1Attrs)
	}
}

// newMount has the process do what newMount does; may: an error is no failure, and
// the word's value.
func (d *Direct) newMount(fstype string, attrs uint64, fd script.Addr, may bool, options []option) {
	s := d.script
	ctx := s.Words(0)
	add := func(number uintptr, result script.Addr, args ...script.Arg) {
		c := script.Call{Number: number, Args: args, Result: result}
		s.Add(c)
	}
	add(unix.SYS_FSOPEN, ctx, script.Val(s.String(fstype)), script.Val(unix.FSOPEN_CLOEXEC))
	for _, o := range options {
		command, value := unix.FSCONFIG_SET_STRING, script.Val(0)
		if o.value == "" {
			command = unix.FSCONFIG_SET_FLAG
		} else {
			value = script.Val(s.String(o.value))
		}
		add(unix.SYS_FSCONFIG, 0, script.Of(ctx), script.Val(command), script.Val(s.String(o.key)), value, script.Val(0))
	}
	create := script.Call{Number: unix.SYS_FSCONFIG, Args: []script.Arg{script.Of(ctx), script.Val(unix.FSCONFIG_CMD_CREATE),
		script.Val(0), script.Val(0), script.Val(0)}}
	mount := script.Call{Number: unix.SYS_FSMOUNT, Args: []script.Arg{script.Of(ctx), script.Val(unix.FSMOUNT_CLOEXEC), script.Val(attrs)}, Result: fd}
	create.Ignore, mount.Ignore = may, may
	s.Add(create)
	s.Add(mount)
	s.Call(unix.SYS_CLOSE, script.Of(ctx))
}

// What the process tells: its mounts are made, it is ready for start.
const (
	toldMounts = 'm'
	toldReady  = 'r'
)

func (d *Direct) tell(what byte) {
	d.script.Call(unix.SYS_WRITE, script.Val(d.fd), script.Val(d.script.Bytes([]byte{what})), script.Val(1))
}

// await waits to be told.
func (d *Direct) await(what byte) error {
	var b [1]byte
	n, err := readFull(d.conn, b[:])
	switch {
	case n == 1 && b[0] == what:
		return nil
	case err != nil && !errors.Is(err, unix.ECONNRESET):
		return err
	}
	return d.failed()
}

// failed is the error of a process that ended instead of going on.
func (d *Direct) failed() error {
	step, errno := d.script.Failure()
	if errno == 0 {
		return &handshake.StepError{Step: step, Err: errEarly}
	}
	return &handshake.StepError{Step: step, Err: errno}
}

// errEarly is the end of a process that no error of its own ended.
var errEarly = errors.New("it ended early (a memory or process limit that is too small does that)")

// take fetches a descriptor of the process, pidfd, by the word that holds it.
func (d *Direct) take(pidfd int, a script.Addr) (int, error) {
	v, err := d.script.Word(a)
	if err != nil {
		return -1, err
	}
	if n := int64(v); n < 0 {
		return -1, syscall.Errno(-n)
	}
	fd, err := unix.PidfdGetfd(pidfd, int(v), 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_getfd: %w", err)
	}
	return fd, nil
}

// Build makes the container's file system on the calling thread, which is in the
// namespaces of the plan but those of processes, and has the process wait for
// start. hooks are those of the runtime's namespaces.
func (d *Direct) Build(pidfd int, hooks func() error) error {
	if err := d.await(toldMounts); err != nil {
		return err
	}
	o := &oci{plan: d.plan, tree: &tree{files: d.plan.Files, cgroupNamespace: d.plan.CgroupNamespace}}
	defer o.tree.close()
	for _, m := range d.made {
		fd, err := d.take(pidfd, m.fd)
		if err != nil {
			return &handshake.StepError{Step: "mount", Err: err}
		}
		d.plan.Files.Mounts[m.mount].FD = fd
	}
	if d.cgroups != nil {
		o.tree.cgroup = func(name string) (*os.File, error) {
			fd, err := d.take(pidfd, d.cgroups[name])
			if err != nil {
				return nil, err
			}
			return os.NewFile(uintptr(fd), name), nil
		}
	}
	unix.Umask(0)
	steps := o.buildSteps(hooks)
	steps = append(steps, ociStep{"find the program", o.find})
	if err := runSteps(steps); err != nil {
		return err
	}
	return d.release(o)
}

// release writes the rest of the script and has the process go on with it.
func (d *Direct) release(o *oci) error {
	ruleset, rights, err := d.landlock()
	if err != nil {
		return err
	}
	if ruleset >= 0 {
		defer func() { _ = unix.Close(ruleset) }()
	}
	if err := d.become(o, ruleset >= 0); err != nil {
		return err
	}
	if err := d.goOn(rights); err != nil {
		return err
	}
	return d.await(toldReady)
}

// landlock opens the rules of the process's Landlock domain, as a descriptor and
// what sends it; -1 when there is none.
func (d *Direct) landlock() (int, []byte, error) {
	domain := d.plan.Process.Landlock
	if domain == nil {
		return -1, nil, nil
	}
	ruleset, err := domain.Ruleset()
	if err != nil {
		return -1, nil, &handshake.StepError{Step: "enter the Landlock domain", Err: err}
	}
	if ruleset < 0 {
		return -1, nil, nil
	}
	return ruleset, unix.UnixRights(ruleset), nil
}

// goOn has the process go on with what was added to its script.
func (d *Direct) goOn(rights []byte) error {
	if err := d.script.Flush(); err != nil {
		return err
	}
	err := unix.Sendmsg(d.conn, []byte{'g'}, rights, nil, unix.MSG_NOSIGNAL)
	if errors.Is(err, unix.EPIPE) {
		return nil // of an end that has an error await tells
	}
	return err
}
