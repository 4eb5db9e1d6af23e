package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
)

// streams connects the workload's streams and returns its descriptors 0, 1, 2.
func (r *running) streams(spec *workload.Spec, l links) ([]*os.File, error) {
	if spec.TTY {
		return r.openTerminal(spec, l)
	}
	in, inHost, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outHost, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errHost, errs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r.stdin = startInput(l[agentproto.Stdin], inHost, nil)
	r.stdout = startOutput(outHost, l[agentproto.Stdout])
	r.stderr = startOutput(errHost, l[agentproto.Stderr])
	return []*os.File{in, out, errs}, nil
}

// veof is what a terminal in canonical mode reads as end of file: Ctrl-D.
var veof = []byte{4}

func (r *running) openTerminal(spec *workload.Spec, l links) ([]*os.File, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	var n int
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	if cerr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); cerr != nil || err != nil {
		return nil, fmt.Errorf("open a terminal: %w", errors.Join(cerr, err))
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	// As docker does it, the terminal belongs to the workload's user.
	if err := slave.Chown(int(spec.User.UID), 5); err != nil {
		return nil, err
	}
	r.terminal = master
	if spec.Size.Rows > 0 && spec.Size.Cols > 0 {
		r.resize(spec.Size)
	}
	r.stdin = startInput(l[agentproto.Stdin], master, veof)
	r.stdout = startOutput(master, l[agentproto.Stdout])
	return []*os.File{slave, slave, slave}, nil
}

func (r *running) resize(size workload.WinSize) {
	if r.terminal == nil {
		return
	}
	raw, err := r.terminal.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	})
}

// limit makes a cgroup with the limit on processes and returns its directory; nil
// when there is none. Memory and CPUs are limited by what the machine has.
func limit(res workload.Resources) (*os.File, error) {
	if res.Pids <= 0 {
		return nil, nil
	}
	root, dir := filepath.Dir(workloadGroup), workloadGroup
	if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+pids"), 0); err != nil {
		return nil, fmt.Errorf("limit the workload: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("limit the workload: %w", err)
	}
	if err := os.WriteFile(dir+"/pids.max", strconv.AppendInt(nil, res.Pids, 10), 0); err != nil {
		return nil, fmt.Errorf("limit the workload: %w", err)
	}
	return limited(res)
}

// workloadGroup is the cgroup of a workload with a limit on processes.
const workloadGroup = "/sys/fs/cgroup/workload"

// limited opens the cgroup that limit made; nil when there is none.
func limited(res workload.Resources) (*os.File, error) {
	if res.Pids <= 0 {
		return nil, nil
	}
	return os.Open(workloadGroup)
}
