package inside

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/launch"

	"github.com/duplex-run/duplex/container/handshake"
)

// openProc opens procfs for this process to write to: a mount of its own that
// nobody else sees (fsopen(2)), or where a user namespace may not make one, what
// is on /proc, once it has proved to be procfs. A container's /proc may be
// anything (CVE-2019-16884, CVE-2019-19921).
func openProc() (*os.File, error) {
	own, err := newMount("proc", noSuidExecDev, option{"source", "proc"})
	if err == nil {
		return own, nil
	}
	f, oerr := os.OpenFile("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if oerr != nil {
		return nil, errors.Join(err, oerr)
	}
	var st unix.Statfs_t
	if serr := unix.Fstatfs(int(f.Fd()), &st); serr != nil || st.Type != unix.PROC_SUPER_MAGIC {
		_ = f.Close()
		return nil, errors.Join(err, serr, errors.New("/proc is not procfs"))
	}
	return f, nil
}

// writeIn writes value to an existing file below proc, through no symbolic link
// but procfs's own self and no other mount.
func writeIn(proc *os.File, path, value string) error {
	f, err := launch.OpenAt(proc, path, &unix.OpenHow{
		Flags:   unix.O_WRONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return fmt.Errorf("open /proc/%s: %w", path, err)
	}
	_, err = unix.Write(int(f.Fd()), []byte(value))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %q to /proc/%s: %w", value, path, err)
	}
	return nil
}

func writeProc(path, value string) error {
	proc, err := openProc()
	if err != nil {
		return err
	}
	defer func() { _ = proc.Close() }()
	return writeIn(proc, path, value)
}

// setSysctls sets parameters of the namespaces this thread is in.
func setSysctls(list []handshake.Setting) error {
	if len(list) == 0 {
		return nil
	}
	proc, err := openProc()
	if err != nil {
		return err
	}
	defer func() { _ = proc.Close() }()
	for _, s := range list {
		if err := writeIn(proc, "sys/"+s.Key, s.Value); err != nil {
			return err
		}
	}
	return nil
}
