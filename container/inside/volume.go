package inside

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/launch"
)

// openVolumes clones what the host has at the volumes' places, with the mounts
// below, while the host's root is still in view: the scratch tmpfs may cover it.
func (b *builder) openVolumes() error {
	for _, v := range b.setup.Volumes {
		src, err := os.OpenFile(v.Host, unix.O_PATH, 0)
		if err != nil {
			return err
		}
		m, err := cloneMount(src, "", true)
		_ = src.Close()
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Host, err)
		}
		b.volumes = append(b.volumes, m)
		attrs, err := volumeAttrs(m, v.ReadOnly)
		if err == nil && attrs != 0 {
			err = setAttrs(m, attrs, true)
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Host, err)
		}
	}
	return nil
}

// volumeAttrs has a directory be nodev: the workload may make device nodes there
// (CAP_MKNOD), which docker's device cgroup would make useless. A device that is
// a volume itself is meant to be used.
func volumeAttrs(m *os.File, readOnly bool) (uint64, error) {
	dir, err := isDir(m)
	var attrs uint64
	if dir {
		attrs |= unix.MOUNT_ATTR_NODEV
	}
	if readOnly {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	return attrs, err
}

// mountVolumes attaches them, at places found and made inside the new root.
// Flags that the host's mounts have (nosuid, noexec) stay; but for nodev none is
// added, as with docker.
func (b *builder) mountVolumes() error {
	for i, v := range b.setup.Volumes {
		m := b.volumes[i]
		var st unix.Stat_t
		if err := unix.Fstat(int(m.Fd()), &st); err != nil {
			return fmt.Errorf("volume %s: %w", v.Host, err)
		}
		at, err := launch.MountPoint(b.root, v.Guest, st.Mode&unix.S_IFMT == unix.S_IFDIR)
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Host, err)
		}
		if err = overProc(v.Guest, m, at); err == nil {
			err = attach(m, at)
		}
		_ = at.Close()
		if err != nil {
			return fmt.Errorf("volume %s on %s: %w", v.Host, v.Guest, err)
		}
	}
	return nil
}
