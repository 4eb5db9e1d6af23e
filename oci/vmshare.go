package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// sharedDir is the one directory that a machine's guest gets of the host, below
// the state directory: mounts in the supervisor's mount namespace, which go with
// it.
const sharedDir = "shared"

// shareFiles puts the guest's files together at dir.
func (g *guestPlan) shareFiles(dir string) error {
	// Nothing that is mounted here is to reach the host.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return noNamespaces(fmt.Errorf("make a mount namespace: %w", err))
	}
	if err := unix.Mount("duplex", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=64m"); err != nil {
		return fmt.Errorf("mount the guest's directory: %w", err)
	}
	config, err := json.Marshal(g.spec)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, guestConfig), config, 0o644); err != nil {
		return err
	}
	for _, b := range g.binds {
		if err := b.mount(dir); err != nil {
			return fmt.Errorf("%s: %w", b.What, err)
		}
	}
	if err := shareProgram(dir); err != nil {
		return fmt.Errorf("duplex's own program: %w", err)
	}
	return nil
}

// shareProgram gives the guest this program: the file, which its guest cannot
// write, or a copy when another one has taken its place.
func shareProgram(dir string) error {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	own, err := os.Stat("/proc/self/exe")
	if err != nil {
		return err
	}
	if now, err := os.Stat(path); err == nil && os.SameFile(own, now) {
		b := guestBind{Name: guestProgram, Source: path, ReadOnly: true}
		return b.mount(dir)
	}
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(filepath.Join(dir, guestProgram), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// mount mounts a copy of what is at the source.
func (b *guestBind) mount(dir string) error {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	// In a user namespace, what is mounted on top may not be taken away.
	recursive := b.Recursive || os.Geteuid() != 0
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, b.Source, flags)
	if err != nil {
		return fmt.Errorf("%s: %w", b.Source, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	at := filepath.Join(dir, b.Name)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = os.Mkdir(at, 0o755)
	case unix.S_IFREG:
		err = os.WriteFile(at, nil, 0o644)
	default:
		return notInVM(b.Source, "it is neither a file nor a directory: sockets, pipes and devices stay the host's")
	}
	if err != nil {
		return err
	}
	if b.ReadOnly {
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		how := uint(unix.AT_EMPTY_PATH)
		if recursive {
			how |= unix.AT_RECURSIVE
		}
		if err := unix.MountSetattr(fd, "", how, attr); err != nil {
			return fmt.Errorf("make it read-only: %w", err)
		}
	}
	err = unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("it cannot be bound: %w", err)
	}
	return err
}
