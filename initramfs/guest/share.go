package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/launch"
)

// mountShares mounts the host's directories below the root, which must be final.
func mountShares(shares []agentproto.Share) error {
	if len(shares) == 0 {
		return nil
	}
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, s := range shares {
		if err := mountShare(root, s); err != nil {
			return fmt.Errorf("volume %s: %w", s.Guest, err)
		}
	}
	return nil
}

func mountShare(root *os.File, s agentproto.Share) error {
	at, err := launch.MountPoint(root, s.Guest, s.File == "")
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	m, err := openShare(s)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	err = unix.MoveMount(int(m.Fd()), "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// openShare makes a detached mount of the share, or of the one file in it.
func openShare(s agentproto.Share) (*os.File, error) {
	ctx, err := unix.Fsopen("virtiofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen virtiofs: %w", err)
	}
	defer func() { _ = unix.Close(ctx) }()
	err = unix.FsconfigSetString(ctx, "source", s.Tag)
	if err == nil && s.ReadOnly {
		err = unix.FsconfigSetFlag(ctx, "ro")
	}
	if err == nil {
		err = unix.FsconfigCreate(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("fsconfig virtiofs %s: %w", s.Tag, err)
	}
	attrs := 0
	if s.ReadOnly {
		attrs = unix.MOUNT_ATTR_RDONLY
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, fmt.Errorf("fsmount virtiofs %s: %w", s.Tag, err)
	}
	m := os.NewFile(uintptr(fd), s.Tag)
	if s.File == "" {
		return m, nil
	}
	defer func() { _ = m.Close() }()
	return oneFile(m, s)
}

// oneFile makes a detached mount of a file in m. Linux before 6.15 clones from
// attached mounts only, so m is put where nobody looks first.
func oneFile(m *os.File, s agentproto.Share) (*os.File, error) {
	if s.File != filepath.Base(s.File) {
		return nil, errors.New("the file's name is a path")
	}
	const hidden = "/dev/.volume"
	if err := os.MkdirAll(hidden, 0o700); err != nil {
		return nil, err
	}
	err := unix.MoveMount(int(m.Fd()), "", unix.AT_FDCWD, hidden, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("move_mount: %w", err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, hidden+"/"+s.File, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	err = errors.Join(err, unix.Unmount(hidden, unix.MNT_DETACH), os.Remove(hidden))
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	return os.NewFile(uintptr(fd), s.File), nil
}
