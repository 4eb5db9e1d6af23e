package inside

import (
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/script"
	"github.com/duplex-run/duplex/internal/workload"
)

// clone makes the workload's process, which has PID 1's memory until execve: PID 1
// waits until then.
func (c *Contained) clone(v2 bool) {
	s := c.direct.script
	s.Call(unix.SYS_CLOSE, script.Of(c.proc))
	s.Step("start the workload's process")
	c.pid = s.Words(0)
	c.message()
	const flags = unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PIDFD
	call := script.Call{Number: unix.SYS_CLONE, Result: c.pid, Args: []script.Arg{
		script.Val(flags | int(unix.SIGCHLD)), script.Val(0), script.Val(c.pidfd), script.Val(0), script.Val(0)}}
	if v2 {
		// struct clone_args, clone(2): the stack is left as it is, and not used.
		args := s.Words(flags|unix.CLONE_INTO_CGROUP, uint64(c.pidfd), 0, 0, uint64(unix.SIGCHLD), 0, 0, 0, 0, 0, containedSpare)
		call.Number, call.Args = unix.SYS_CLONE3, []script.Arg{script.Val(args), script.Val(11 * 8)}
	}
	s.Add(call)
	s.Branch(c.pid, ^uint64(0), 0, "workload")
	s.Branch(script.Errno, ^uint64(0), 0, "executed")
	s.Call(unix.SYS_EXIT_GROUP, script.Val(workload.StatusError))
}

// message is what PID 1 tells with toldExecuted: clone(2) puts the pidfd into it.
func (c *Contained) message() {
	s := c.direct.script
	const head = unix.SizeofCmsghdr
	control := s.Words(head+4, unix.SOL_SOCKET|unix.SCM_RIGHTS<<32, 0) // struct cmsghdr, and the descriptor
	c.pidfd = control + head
	vector := s.Words(uint64(s.Bytes([]byte{toldExecuted})), 1)
	c.sent = s.Words(0, 0, uint64(vector), 1, uint64(control), 3*8, 0)
}

// reap is PID 1 from when the workload is executed: renounce, and function reap.
func (c *Contained) reap(v2, landlock bool) {
	d, s := c.direct, c.direct.script
	s.Label("executed")
	s.Step("drop init's privileges")
	for fd := range 3 {
		s.Call(unix.SYS_DUP3, script.Val(containedNull), script.Val(fd), script.Val(0))
	}
	last := containedSpare + c.execute.CgroupTasks
	if v2 {
		last++
	}
	if c.execute.PidsLimit != "" {
		last++
	}
	for fd := containedNull; fd < last; fd++ {
		if fd != containedProgram {
			s.Call(unix.SYS_CLOSE, script.Val(fd))
		}
	}
	if landlock {
		s.Call(unix.SYS_CLOSE, script.Of(d.ruleset))
	}
	s.Call(unix.SYS_PRCTL, script.Val(unix.PR_SET_DUMPABLE), script.Val(0), script.Val(0), script.Val(0), script.Val(0))
	ignore := s.Words(1, 0, 0, 0) // struct sigaction, of SIG_IGN
	for _, n := range ignoredByInit {
		s.Call(unix.SYS_RT_SIGACTION, script.Val(int(n)), script.Val(ignore), script.Val(0), script.Val(8))
	}
	none := s.Words(0, 0, 0)
	s.Call(unix.SYS_CAPSET, script.Val(s.Words(unix.LINUX_CAPABILITY_VERSION_3)), script.Val(none))
	s.Add(script.Call{Number: unix.SYS_SENDMSG, Args: []script.Arg{script.Val(containedConn), script.Val(c.sent), script.Val(0)}, Ignore: true})
	s.Call(unix.SYS_CLOSE, script.Of(c.pidfd))
	s.Step("wait for the workload")
	c.reaped, c.status = s.Words(0), s.Words(0)
	s.Label("reap")
	s.Add(script.Call{Number: unix.SYS_WAIT4, Result: c.reaped, Tolerate: unix.EINTR, Then: "reap",
		Args: []script.Arg{script.Val(-1), script.Val(c.status), script.Val(0), script.Val(0)}})
	s.Branch(c.reaped, ^uint64(0), workloadPID, "over")
	s.Jump("reap")
	s.Label("over")
	s.Call(unix.SYS_EXIT_GROUP, script.Val(0))
}

// become is the workload's process until it is executed, as execMain.
func (c *Contained) become(path string, v2, landlock bool) error {
	d, s, e := c.direct, c.direct.script, c.execute
	s.Label("workload")
	s.Call(unix.SYS_SETSID)
	first := containedSpare
	if v2 {
		first++
	}
	c.enterGroups(first)
	c.newKeyring()
	d.resetSignals()
	if err := d.raiseRlimits(); err != nil {
		return err
	}
	s.Call(unix.SYS_UMASK, script.Val(0o022))
	s.Step("prepare the workload")
	cwd, buf := e.Spec.Cwd, s.Bytes(make([]byte, unix.PathMax))
	if cwd == "" {
		cwd = "/"
	}
	s.Call(unix.SYS_CHDIR, script.Val(s.String(cwd)))
	s.Call(unix.SYS_GETCWD, script.Val(buf), script.Val(unix.PathMax))
	s.Branch(buf, 0xff, '/', "there")
	s.Call(unix.SYS_EXIT_GROUP, script.Val(workload.StatusError)) // outside the root: it was moved
	s.Label("there")
	d.restrict(landlock)
	if err := d.user(); err != nil {
		return err
	}
	if e.PidsLimit != "" {
		s.Step("limit the processes")
		limit := []byte(e.PidsLimit)
		s.Call(unix.SYS_WRITE, script.Val(first+e.CgroupTasks), script.Val(s.Bytes(limit)), script.Val(len(limit)))
	}
	c.began = s.Words(0, 0)
	s.Call(unix.SYS_CLOCK_GETTIME, script.Val(unix.CLOCK_MONOTONIC_RAW), script.Val(c.began)) // as workload.Now
	d.execute(path, s.Words(containedConn))
	return nil
}

// newKeyring is function newKeyring.
func (c *Contained) newKeyring() {
	s := c.direct.script
	s.Step("make a session keyring")
	result := s.Words(0)
	call := script.Call{Number: unix.SYS_KEYCTL, Result: result, Ignore: true,
		Args: []script.Arg{script.Val(unix.KEYCTL_JOIN_SESSION_KEYRING), script.Val(0)}}
	s.Add(call)
	for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
		s.Branch(result, ^uint64(0), -uint64(errno), "keyring")
	}
	s.Branch(result, 1<<63, 0, "keyring")
	call.Ignore = false // it fails again
	s.Add(call)
	s.Label("keyring")
}

// enterGroups is enterCgroups; the tasks files are descriptors from first on.
func (c *Contained) enterGroups(first int) {
	s, e := c.direct.script, c.execute
	s.Step("enter the cgroup namespace")
	for i := range e.CgroupTasks {
		s.Call(unix.SYS_WRITE, script.Val(first+i), script.Val(s.Bytes([]byte("0"))), script.Val(1))
	}
	if !e.HostCgroup {
		s.Call(unix.SYS_UNSHARE, script.Val(unix.CLONE_NEWCGROUP))
	}
	const place, attrs = "/sys/fs/cgroup", noSuidExecDev | unix.MOUNT_ATTR_RDONLY
	if unix.Access(place, unix.F_OK) != nil {
		return // a kernel without cgroups
	}
	var names []string
	switch {
	case len(e.CgroupMounts) > 0:
		c.mountAt("tmpfs", noSuidExecDev, place, []option{{"source", "cgroup"}, {"mode", "0755"}})
		names = e.CgroupMounts
	case e.CgroupUnified:
		c.mountAt("cgroup2", attrs, place, []option{{"source", "cgroup"}})
	}
	for _, name := range names {
		dir := place + "/" + name
		s.Call(unix.SYS_MKDIR, script.Val(s.String(dir)), script.Val(0o755))
		c.mountAt("cgroup", attrs, dir, v1Options(name))
	}
	if len(names) > 0 {
		readOnly := s.Words(unix.MOUNT_ATTR_RDONLY, 0, 0, 0) // struct mount_attr
		s.Call(unix.SYS_MOUNT_SETATTR, script.Val(unix.AT_FDCWD), script.Val(s.String(place)), script.Val(0), script.Val(readOnly), script.Val(4*8))
	}
}

// mountAt mounts at a place that is no symbolic link: it is in a file system of ours.
func (c *Contained) mountAt(fstype string, attrs uint64, place string, options []option) {
	s := c.direct.script
	fd := s.Words(0)
	c.direct.newMount(fstype, attrs, fd, false, options)
	s.Add(script.Call{Number: unix.SYS_MOVE_MOUNT, Args: []script.Arg{script.Of(fd), script.Val(s.String("")),
		script.Val(unix.AT_FDCWD), script.Val(s.String(place)), script.Val(unix.MOVE_MOUNT_F_EMPTY_PATH)}})
	s.Call(unix.SYS_CLOSE, script.Of(fd))
}
