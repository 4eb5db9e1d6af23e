// Guest is the /init that QEMU boots an image with: it loads the modules it finds
// in /modules, mounts /dev/vda read-only with a tmpfs over it, says that it is
// ready, and becomes the command after "--" on the kernel's command line. It does
// less than duplex's agent on its way there: no streams, no user, no limits.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/vmmbench/bootbench"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: is the init of a virtual machine, nothing else")
		os.Exit(2)
	}
	fmt.Println("guest:", run())
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	if err := loadModules(); err != nil {
		return err
	}
	if err := mountRoot(); err != nil {
		return err
	}
	if _, err := os.Stdout.Write([]byte{bootbench.Ready, '\n'}); err != nil {
		return err
	}
	// The kernel gives init what comes after "--".
	return unix.Exec(os.Args[1], os.Args[1:], []string{"PATH=/bin", "HOME=/root"})
}

func loadModules() error {
	order, err := os.ReadFile("/modules/order")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(order)) {
		f, err := os.Open(filepath.Join("/modules", name))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

// mountRoot makes the image the root, and mounts what a command expects there.
func mountRoot() error {
	for _, d := range []string{"/lower", "/rw", "/root"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	const root = "/root"
	for _, m := range []struct{ source, target, kind, data string }{
		{"devtmpfs", "/dev", "devtmpfs", ""},
		{"/dev/vda", "/lower", "erofs", ""},
		{"tmpfs", "/rw", "tmpfs", ""},
		{"overlay", root, "overlay", "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work"},
		{"devtmpfs", root + "/dev", "devtmpfs", ""},
		{"proc", root + "/proc", "proc", ""},
		{"sysfs", root + "/sys", "sysfs", ""},
	} {
		if m.kind == "overlay" {
			for _, d := range []string{"/rw/upper", "/rw/work"} {
				if err := os.Mkdir(d, 0o755); err != nil {
					return err
				}
			}
		}
		flags := uintptr(0)
		if m.kind == "erofs" {
			flags = unix.MS_RDONLY
		}
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		err := unix.Mount(m.source, m.target, m.kind, flags, m.data)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	return unix.Chroot(".")
}
