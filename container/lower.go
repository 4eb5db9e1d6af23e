package container

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NeedsTree reports whether containers on this host need the image unpacked
// (workload.Rootfs.Tree), because this user or this kernel cannot mount its
// EROFS file.
func NeedsTree() bool {
	if os.Geteuid() != 0 {
		return true
	}
	fd, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC) // loads the module
	if err != nil {
		return true
	}
	_ = unix.Close(fd)
	return !mountsFiles() && unix.Access("/dev/loop-control", unix.W_OK) != nil
}

// mountsFiles reports whether this kernel is new enough to mount an EROFS file
// without a loop device, Linux 6.12.
func mountsFiles() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 6 || major == 6 && minor >= 12)
}
