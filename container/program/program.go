package program

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/sealed"
	"github.com/duplex-run/duplex/internal/embedded/initprogram"
)

// fused is "yes" in a program whose file is several, one of which becomes the
// container's own processes (internal/embedded/fuse); the build sets it.
var fused string

// Prefetch starts to load what the first run of this process needs, so that it
// is there when the caller has done what it has to do before Run. Optional.
func Prefetch() {
	if fused == "" {
		go func() { _, _ = copied() }() // Run reports the error
	}
}

// Open returns the executable of the container's own processes, so that nothing
// in a container can change a file of the host through /proc/PID/exe
// (CVE-2019-5736). It is this very file on a read-only mount, where it is fused
// and the caller may mount; otherwise Sealed.
//
// The caller closes it as soon as the process has started, before the container
// runs anything: while the mount is open, who is privileged and reaches it could
// make it writable. Where others already are in the container: Sealed.
func Open() (*os.File, error) {
	if fused != "" {
		if f, err := readOnly("/proc/self/exe"); err == nil {
			return f, nil
		}
	}
	return Sealed()
}

// Sealed is the small program that duplex carries, in memory and sealed; or
// this file as it is, when duplex was built without. The caller closes it.
func Sealed() (*os.File, error) {
	f, err := copied()
	if err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// readOnly opens an executable on a mount of its own that is read-only and nowhere
// to be found. It is gone when the last descriptor is closed; what was executed
// from it keeps it, and nobody can change its attributes any more, because it is
// in no mount namespace (mount_setattr(2)).
func readOnly(path string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open_tree %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH,
		&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV})
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil && st.Mode&0o005 != 0o005 {
		err = unix.EACCES // user 0 of another user namespace could not execute it
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

var carried = initprogram.ELF

// UseOwn has this process's own executable be the program: tests test what they were
// compiled with.
func UseOwn() { carried = func() []byte { return nil } }

// copied returns the program that duplex carries, in sealed memory, shared by all
// runs of this process.
var copied = sync.OnceValues(func() (*os.File, error) {
	data := carried()
	if data == nil {
		return os.Open("/proc/self/exe")
	}
	f, err := sealed.Program("duplex-init", data)
	if err != nil {
		return nil, fmt.Errorf("load the container's init: %w", err)
	}
	return f, nil
})
