package listing

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Mounted mounts the EROFS image file read-only on the directory at, in a mount
// namespace of its own that is gone when it returns, and calls f there. It
// needs root, and before Linux 6.12, which mounts files, a loop device.
func Mounted(image, at string, f func() error) error {
	return mounted(image, at, "erofs", unix.MS_RDONLY, "", f)
}

// OnSmallDisk is Mounted with an empty file system of that many bytes.
func OnSmallDisk(bytes int, at string, f func() error) error {
	return mounted("tmpfs", at, "tmpfs", 0, fmt.Sprintf("size=%d", bytes), f)
}

func mounted(source, at, fstype string, flags uintptr, options string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine and takes
		// its namespace along.
		runtime.LockOSThread()
		err := privateMounts()
		if err == nil {
			if err = mount(source, at, fstype, flags, options); err == nil {
				err = f()
			}
		}
		done <- err
	}()
	return <-done
}

func mount(source, at, fstype string, flags uintptr, options string) error {
	err := unix.Mount(source, at, fstype, flags, options)
	if errors.Is(err, unix.ENOTBLK) {
		// The child shares this thread's mount namespace.
		out, merr := exec.Command("mount", "-t", fstype, "-o", "loop,ro", source, at).CombinedOutput()
		if merr == nil {
			return nil
		}
		err = fmt.Errorf("through a loop device: %w: %s", merr, out)
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", source, err)
	}
	return nil
}

func privateMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}
