package agentproto

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// connectWait replaces the kernel's 2 s, which a busy host may take to answer.
var connectWait = unix.Timeval{Sec: 60}

// DialHost connects a guest's process to a port of its host, by vsock, and returns
// the descriptor.
func DialHost(port uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptTimeval(fd, unix.AF_VSOCK, unix.SO_VM_SOCKETS_CONNECT_TIMEOUT, &connectWait)
	if err == nil {
		err = undisturbed(func() error {
			return unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port})
		})
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// undisturbed runs f without signals, such as those by which Go's runtime shares a
// CPU: a connect(2) by vsock is not restarted after one, and cannot be tried again,
// because the host may have seen the first.
func undisturbed(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &before); err != nil {
		return err
	}
	return errors.Join(f(), unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil))
}
